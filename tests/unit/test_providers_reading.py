"""Money, text and answers of any shape: readers never raise and never let a secret through."""

import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.providers.base import Ask, Placed, Seen
from agents.providers.codes import Codes
from agents.providers.money import read_amount
from agents.providers.text import decode, hide, one_line, read_json, read_pin
from agents.providers.zdk import replies as zdk
from agents.providers.zdk.adapter import Barakat
from agents.providers.zdk.products import read_products
from agents.providers.znet import replies as znet
from agents.providers.znet.adapter import Znet
from streams.errors import ProviderError

SECRETS = ("5551112233", 'pass"/ş&x')


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("12755.23", "12755.23"),
        ("37,60", "37.6"),
        ("1.234,56", "1234.56"),
        ("1,234.56", "1234.56"),
        ("1.234.567", "1234567"),
        ("1,234,567", "1234567"),
        ("1.234.567,89", "1234567.89"),
        ("-20.00", "-20"),
        ("+3", "3"),
        ("5 TL", "5"),
        ("₺5,5", "5.5"),
        ("1\u00a0234,5 TRY", "1234.5"),
        ("1.2604800000000000", "1.26048"),
        ("1.234", "1.234"),
        (".5", "0.5"),
        (7, "7"),
        (Decimal("0.877"), "0.877"),
        (Decimal("1E+2"), "100"),
    ],
)
def test_an_amount_is_read_as_it_was_meant(text, amount):
    assert str(read_amount(text)) == amount


@pytest.mark.parametrize(
    "value",
    [
        "",
        "-",
        "1,",
        "1.2.3",
        "12,34.5",
        "1,5,",
        "1e5",
        "NaN",
        "bakiye",
        "١٢",
        "1" * 16,
        True,
        None,
        [],
        0.5,
        Decimal("NaN"),
        Decimal("1E+999999999"),
        Decimal("1E-999999"),
        10**20,
    ],
)
def test_what_is_not_money_is_unknown(value):
    assert read_amount(value) is None


@given(st.text() | st.decimals() | st.integers())
def test_reading_an_amount_never_raises(value):
    amount = read_amount(value)
    assert amount is None or amount.is_finite()


@pytest.mark.parametrize(
    ("body", "charset", "text"),
    [
        ("Küpür".encode(), None, "Küpür"),
        ("Küpür".encode("cp1254"), None, "Küpür"),
        ("İş".encode("iso8859-9"), "ISO-8859-9", "İş"),
        ("İş".encode(), "us-ascii", "İş"),
        (b"\xef\xbb\xbf\xef\xbb\xbfa", "windows-1254", "a"),
        ("İş".encode("utf-16"), "utf-16", "İş"),
        (b"a", "zip", "a"),
        (b"\xc2\xa0 a\x00\r\n", None, "a"),
        (b"\x81\x8d", None, "\ufffd\ufffd"),
    ],
)
def test_text_is_decoded_by_charset_then_utf8_then_turkish(body, charset, text):
    assert decode(body, charset) == text


@given(st.binary(max_size=300), st.text(max_size=12) | st.sampled_from(["utf-16", "utf-8", "cp1256", "hex"]))
def test_decoded_text_fits_any_database(body, charset):
    text = decode(body, charset)
    assert "\x00" not in text
    text.encode()


@pytest.mark.parametrize("blank", ["", " ", "-", " - ", "–", "— -", "\u00a0", None, True, [], {}])
def test_dashes_and_blanks_are_no_pin(blank):
    assert read_pin(blank) is None


def test_a_message_has_no_address_and_no_secret():
    text = one_line("see https://shop.example/x?kod=5551112233\n or pin_ekle.php?kod=1 for 5551112233", SECRETS)
    assert text == "see [url] or [url] for ***"


def test_a_secret_is_hidden_in_every_form():
    forms = [SECRETS[1], "pass%22%2F%C5%9F%26x", "pass&quot;/ş&amp;x", json.dumps(SECRETS[1]), r"pass\"\/\u015f&x"]
    assert "pass" not in hide(" ".join(forms), SECRETS)


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 900 + "]" * 900, "1e9999999999999999999", "NaN", "1" * 5000, ""])
def test_json_that_is_a_trap_is_a_value_error(text):
    with pytest.raises(ValueError):
        read_json(text)


ROWISH = st.lists(
    st.sampled_from(["OK", "ok", "1", "2", "3", "8", "4", "10.12", "37,60", "-", " ", "", "<br>", "text", "\n"])
    | st.text(max_size=8),
    max_size=7,
).map("|".join)
JSONISH = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["OK", "ERROR", "accept", "wait", "reject", "refunded", "100", "PIN-SECRET-1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "status",
                    "state",
                    "code",
                    "data",
                    "order_id",
                    "id",
                    "order_uuid",
                    "price",
                    "pin",
                    "replay_api",
                    "replay",
                    "message",
                    "note",
                    "balance",
                    "success",
                    "error_code",
                    "result",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)
ANSWERS = ROWISH | JSONISH.map(json.dumps) | st.text(max_size=60)
STATUS = st.sampled_from([200, 200, 200, 201, 302, 400, 401, 403, 404, 408, 422, 429, 500, 503])
DIALECT = zdk.Dialect("USD")
ASKS = [Ask("r-1", "1"), Ask("r-2", None, delivers_pin=True)]


@settings(max_examples=300)
@given(ANSWERS, STATUS)
def test_no_answer_makes_a_reader_raise(text, status):
    placements = (znet.read_placement("r-1", status, text), zdk.read_placement("r-1", status, text, DIALECT))
    for placed in placements:
        assert len(placed.raw) <= 2000 and len(placed.message) <= 500
        if not 200 <= status < 300:
            assert placed.kind not in (Placed.ACCEPTED, Placed.COMPLETED, Placed.REFUSED_AFTER_ACCEPT)
    seen = [znet.read_status("r-1", status, text)]
    for by_uuid in (True, False):
        seen += zdk.read_statuses(ASKS, status, text, DIALECT, by_uuid=by_uuid)
    for answer in seen:
        assert answer.kind is Seen.QUERY_ERROR or status == 200
        assert not answer.pins or answer.kind is Seen.SUCCEEDED
    for balance in (znet.read_balance(status, text), zdk.read_profile(status, text, DIALECT)):
        assert (balance.money is None) == bool(balance.reason)
    for catalogue in (lambda: znet.read_catalogue(status, text), lambda: read_products(status, text, "USD")):
        try:
            catalogue()
        except ProviderError:
            pass


@given(JSONISH, st.sampled_from(["pin", "replay_api", "replay", "Pin"]), st.integers(0, 200))
def test_a_pin_is_never_in_the_evidence(rest, key, cut):
    text = json.dumps({"status": "OK", "data": {"order_id": "1", "status": "wait", "x": rest, key: ["PIN-SECRET-1"]}})
    for body in (text, text[:-cut] if cut else text):
        raw = zdk.read_placement("r", 200, body, DIALECT).raw
        assert "SECRET" not in raw or "SECRET" in json.dumps(rest)


def test_a_note_that_repeats_a_pin_is_masked_in_evidence_and_message():
    order = {"order_id": "1", "status": "accept", "pin": "PIN-SECRET-1", "note": "code PIN-SECRET-1"}
    placed = zdk.read_placement("r", 200, json.dumps({"status": "OK", "data": order}), DIALECT)
    assert placed.pins == ("PIN-SECRET-1",) and placed.message == "code ***"
    assert "SECRET" not in placed.raw


@pytest.mark.parametrize(
    "text",
    [
        "OK|2|PIN-SECRET-1|x",
        "<br>Warning\nOK|2|PIN-SECRET-1|x",
        "OK|9|PIN-SECRET-1|PIN-SECRET-1",
        "2|PIN-SECRET-1",
        "OK|1|PIN-SECRET-1",
        "ok | 2 | PIN-SECRET-1",
    ],
)
def test_a_pin_of_znet_is_never_in_evidence_or_message(text):
    answer = znet.read_status("r", 200, text)
    assert "SECRET" not in answer.raw + answer.message


def test_references_are_what_strict_servers_take_and_never_change():
    """Attempts in flight during an upgrade are looked up by these."""
    znet_reference, uuid = Znet.reference("demo", "o-1", 1), Barakat.reference("demo", "o-1", 1)
    assert znet_reference == "464006233150006264" and len(znet_reference) == 18
    assert uuid == "5613074d-d894-4f59-b00c-91edd89820a7" and uuid[14] == "4" and uuid[19] in "89ab"
    assert Codes.reference("demo", "o-1", 1) == "codes-74503e0b7f5e41b0557b7362975ee219"
