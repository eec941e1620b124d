"""What a broken event does: an EventError that names the field, and nothing else, ever."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams import events
from streams.errors import EventError
from streams.events import Amount, Check, Created

MARK = "s3cr3t-c0ntent"
GOOD: dict[str, Any] = {
    "order_id": "order-1",
    "tenant_id": "demo",
    "package_id": "pubg-60",
    "user_identifier": "5550001",
    "created_at": "2026-01-31T12:00:00Z",
    "quantity": 1,
    "extra_field": "x",
    "customer_phone": "+90",
    "params": {"server": "eu"},
    "sell_price": {"amount": "12.50", "currency": "TRY"},
}
REQUIRED = ["order_id", "tenant_id", "package_id", "user_identifier", "created_at"]
#: Values that are wrong for every field of ``created`` they are put into.
WRONG: dict[str, st.SearchStrategy[Any]] = {
    "order_id": st.sampled_from(["", "x" * 65, "a b", MARK + "!", "ğ", "a\n", 7, None, [], {}, True, 1.5]),
    "tenant_id": st.sampled_from(["", "x" * 65, "a/b", MARK + " ", "a\u0000", 7, None, [MARK]]),
    "package_id": st.sampled_from(["", MARK * 20, 12345, None, [MARK], {"a": MARK}, "p\u0000"]),
    "user_identifier": st.sampled_from([MARK * 40, 5550001, None, [MARK], "u\u0000" + MARK]),
    "created_at": st.sampled_from(
        [
            MARK,
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-02-30T00:00:00Z",
            1767225600,
            None,
            "0001-01-01T00:00:00+14:00",
            "9999-12-31T23:59:59-14:00",
            "",
        ]
    ),
    "quantity": st.one_of(
        st.integers(max_value=0),
        st.integers(min_value=1001),
        st.sampled_from(["1", 1.5, None, True, [1], 10**30, -(10**30)]),
    ),
    "extra_field": st.sampled_from([5, [MARK], {"a": MARK}, "x" * 4001, MARK + "\u0000"]),
    "customer_phone": st.sampled_from([905, [MARK], MARK * 10, "\u0000"]),
    "params": st.sampled_from(
        [MARK, [MARK], {MARK: 5}, {MARK: None}, {MARK: {MARK: MARK}}, {MARK: "\u0000"}, {MARK + "\u0000": "a"}, 3]
    ),
    "sell_price": st.sampled_from(
        [
            MARK,
            5,
            [MARK],
            {},
            {"amount": "1"},
            {"currency": "TRY"},
            {"amount": MARK, "currency": "TRY"},
            {"amount": "NaN", "currency": "TRY"},
            {"amount": "Infinity", "currency": "TRY"},
            {"amount": "1e99", "currency": "TRY"},
            {"amount": "1e-99", "currency": "TRY"},
            {"amount": "1", "currency": "try"},
            {"amount": "1", "currency": MARK},
            {"amount": None, "currency": "TRY"},
        ]
    ),
}


@st.composite
def one_wrong_field(draw: st.DrawFn) -> tuple[str, bytes]:
    name = draw(st.sampled_from(sorted(WRONG)))
    event = dict(GOOD)
    if name in REQUIRED and draw(st.booleans()):
        del event[name]
    else:
        event[name] = draw(WRONG[name])
    unknown = st.text(max_size=8).map(lambda text: "zz" + text)
    noise = draw(st.dictionaries(unknown, st.integers() | st.text(), max_size=3))
    return name, json.dumps(event | noise).encode()


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(one_wrong_field())
def test_a_malformed_order_names_its_field_and_never_shows_its_content(case: tuple[str, bytes]) -> None:
    name, value = case

    with pytest.raises(EventError) as raised:
        events.decode(Created, value)

    assert name in str(raised.value)
    assert MARK not in str(raised.value)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    st.binary(max_size=200)
    | st.text(max_size=200).map(str.encode)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_other_bytes_are_an_event_error_too(value: bytes) -> None:
    with pytest.raises(EventError):
        events.decode(Created, value)


@pytest.mark.parametrize("kind", events.EVENTS)
@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'{"order_id": "\\ud800"}',
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",  # exhausts a recursive reader
        b'{"quantity": 1e999, "checks": 1e999, "attempt": 1e999}',
    ],
    ids=range(11),
)
def test_no_kind_of_event_lets_another_exception_out(kind: type[events.Event], value: bytes | None) -> None:
    with pytest.raises(EventError, match=kind.TYPE):
        events.decode(kind, value)


def test_a_nul_escape_inside_allowed_text_is_still_text() -> None:
    value = json.dumps(GOOD | {"extra_field": "a literal \\u0000 is six characters"}).encode()

    assert events.decode(Created, value).extra_field == "a literal \\u0000 is six characters"


def test_an_id_does_not_depend_on_the_zone_an_instant_was_written_in() -> None:
    due_at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    one, other = (
        Check(order_id="o", tenant_id="t", attempt=1, check_number=1, reason="first", due_at=at)
        for at in (due_at, due_at.astimezone(timezone(timedelta(hours=3))))
    )

    assert events.event_id(one) == events.event_id(other)


def test_the_fingerprint_is_of_what_was_ordered() -> None:
    order = events.decode(Created, json.dumps(GOOD).encode())
    later = GOOD | {"created_at": "2026-02-01T00:00:00Z", "sell_price": None}
    same = events.decode(Created, json.dumps(later).encode())

    assert order.fingerprint() == same.fingerprint()
    for name, value in {
        "package_id": "p2",
        "quantity": 2,
        "user_identifier": "other",
        "extra_field": "y",
        "customer_phone": "+1",
        "params": {"server": "us"},
    }.items():
        changed = events.decode(Created, json.dumps(GOOD | {name: value}).encode())
        assert changed.fingerprint() != order.fingerprint(), name


def test_headers_are_cloudevents_in_binary_mode() -> None:
    order = events.decode(Created, json.dumps(GOOD).encode())

    made = events.headers(order, source="shop", at=order.created_at, extra=[("traceparent", b"00-1-2-01")])

    assert {name: value for name, value in made if name != "ce_id"} == {
        "ce_specversion": b"1.0",
        "ce_source": b"shop",
        "ce_type": b"orderwatch.order.created.v1",
        "ce_time": b"2026-01-31T12:00:00Z",
        "ce_subject": b"order-1",
        "content-type": b"application/json",
        "traceparent": b"00-1-2-01",
    }
    assert events.header(made, "ce_id") == events.event_id(order)
    assert events.header(None, "ce_id") is None
    assert events.header([("ce_id", None)], "ce_id") is None


def test_money_travels_as_a_decimal_string() -> None:
    order = events.decode(Created, json.dumps(GOOD).encode())

    assert order.sell_price == Amount(amount=events.Decimal("12.50"), currency="TRY")
    assert json.loads(events.encode(order))["sell_price"] == {"amount": "12.50", "currency": "TRY"}
