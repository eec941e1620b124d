"""Providers by name, and one line for everything in a configuration that does not fit its provider."""

import subprocess
import sys
from pathlib import Path

import pytest

from agents.providers.base import Refusal
from agents.providers.registry import build, check_integration, check_mapping, profile_of, providers
from streams.errors import ConfigError

TOP = Path(__file__).parents[2]
ZNET = {
    "id": "z",
    "provider": "znet",
    "base_url": "https://bayi.example",
    "credentials": {"kod": "k", "sifre": "s3cret"},
}
BARAKAT = ZNET | {"provider": "barakat", "currency": "USD", "credentials": {"token": "s3cret"}}
MAPPING = {"tenant_id": "demo", "package_id": "p", "integration": "z", "provider_package_id": "1"}


def test_the_built_in_providers_are_always_there():
    assert {"apstore", "barakat", "codes", "znet"} <= set(providers())
    assert providers()["apstore"] is providers()["barakat"]


@pytest.mark.parametrize(
    "doc",
    [
        ZNET,
        ZNET | {"currency": "TRY", "options": {"allow_http": True}},
        BARAKAT,
        {"id": "c", "provider": "codes", "credentials": {}, "options": None},
    ],
)
def test_an_integration_that_fits_has_no_problem(doc):
    assert check_integration(doc) == []


CODES = "expected one of funds, stock, package, player, quantity, access, other, retry_later, ambiguous, harmless"


@pytest.mark.parametrize(
    ("doc", "line"),
    [
        (ZNET | {"provider": "zent"}, "provider is 'zent'; expected one of apstore, barakat, codes, znet"),
        (ZNET | {"credentials": {"kod": "k"}}, "credentials.sifre is missing; expected a value, znet needs kod, sifre"),
        (
            ZNET | {"credentials": {**ZNET["credentials"], "token": "s3cret"}},
            "credentials.token is not known to znet; expected kod, sifre",
        ),
        (ZNET | {"base_url": None}, "base_url is missing; expected the http(s) address of the account"),
        (ZNET | {"currency": "USD"}, "currency is 'USD'; expected TRY, the only one of znet"),
        (
            BARAKAT | {"currency": None},
            "currency is missing; expected the account's currency, barakat does not tell it",
        ),
        (
            ZNET | {"options": {"fone": "1"}},
            "options.fone is not known to znet; expected one of allow_http, phone_placeholder",
        ),
        (
            BARAKAT | {"options": {"list_syntax": "round"}},
            "options.list_syntax is 'round'; expected one of bracketed, quoted, bare",
        ),
        (BARAKAT | {"options": {"method": "PUT"}}, "options.method is 'PUT'; expected one of GET, POST"),
        (
            BARAKAT | {"options": {"words": {"ok": "done"}}},
            "options.words.ok is 'done'; expected one of pending, succeeded, failed",
        ),
        (BARAKAT | {"options": {"error_codes": {105: "gone"}}}, f"options.error_codes.105 is 'gone'; {CODES}"),
        (
            BARAKAT | {"options": {"error_codes": {"x": "funds"}}},
            "options.error_codes.x is not a code; expected a number",
        ),
        (ZNET | {"profile": {"batch": 0}}, "profile.batch is 0; expected a whole number above 0"),
        (ZNET | {"profile": {"repeat_safe": "yes"}}, "profile.repeat_safe is 'yes'; expected true or false"),
        (
            ZNET | {"profile": {"absent_settle_s": -1}},
            "profile.absent_settle_s is -1; expected a number of seconds, 0 or more",
        ),
        (
            ZNET | {"profile": {"fallback_on": ["money"]}},
            "profile.fallback_on is ['money']; expected a list of "
            "funds, stock, package, player, quantity, access, other",
        ),
    ],
)
def test_each_mistake_in_an_integration_is_one_line(doc, line):
    assert check_integration(doc) == [f"integrations[{doc['id']}].{line}"]
    assert "s3cret" not in line


def test_an_unknown_profile_field_names_the_known_ones():
    [line] = check_integration(ZNET | {"profile": {"bach": 1}})
    assert line.startswith("integrations[z].profile.bach is not known; expected one of repeat_safe, look_up, batch")


@pytest.mark.parametrize(
    ("keys", "provider", "line"),
    [
        ({"oyun": "1"}, "znet", "kupur is missing; expected a value, znet needs kupur, oyun"),
        ({}, "codes", "code_group is missing; expected a value, codes needs code_group"),
        (
            {"params": {"x": "{player}"}},
            "barakat",
            "params.x has placeholder {player}; expected one of customer_phone, extra_field, order_id, quantity, "
            "user_identifier, params.<name>",
        ),
        (
            {"params": {"x": "{extra_field"}},
            "barakat",
            "params.x is '{extra_field'; expected a closing brace after {extra_field",
        ),
        (
            {"params": {"order_uuid": "1"}},
            "barakat",
            "params.order_uuid is not allowed; expected a parameter that the adapter does not set itself",
        ),
        (
            {"params": {"token": "1"}},
            "barakat",
            "params.token is not allowed; expected a parameter that the adapter does not set itself",
        ),
        ({"player": ""}, "barakat", "player is ''; expected text such as {user_identifier}"),
    ],
)
def test_each_mistake_in_a_mapping_is_one_line(keys, provider, line):
    assert check_mapping(MAPPING | keys, provider) == [f"mappings[demo/p/z].{line}"]


def test_a_mapping_that_fits_has_no_problem():
    keys = {"oyun": "1", "kupur": "2", "player": "{extra_field} {user_identifier}", "params": {"s": "{params.server}"}}
    assert check_mapping(MAPPING | keys, "znet") == []


def test_a_profile_is_overridden_field_by_field():
    profile = profile_of("znet", {"absent_answers": 2, "fallback_on": ["stock"]})
    assert (profile.absent_answers, profile.fallback_on) == (2, frozenset({Refusal.STOCK}))
    assert profile.absent_window_s == profile_of("znet", {}).absent_window_s
    with pytest.raises(ConfigError, match=r"profile\.batch is 'x'"):
        profile_of("znet", {"batch": "x"})


def test_an_unknown_provider_cannot_be_built():
    with pytest.raises(ConfigError, match="provider is 'nobody'; expected one of"):
        build("nobody", None)


def plug_in(directory: Path, entry: str) -> subprocess.CompletedProcess[str]:
    """The providers a process sees that has a plug-in installed."""
    info = directory / "plug_in-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-in\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[orderwatch.providers]\n{entry}\n")
    program = "from agents.providers.registry import providers; print(providers()['topup'].__name__)"
    path = (TOP, directory, TOP / "examples" / "provider_topup")
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {[str(item) for item in path]!r}; {program}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_plug_in_is_found_by_its_entry_point(tmp_path):
    done = plug_in(tmp_path, "topup = orderwatch_topup:Topup")
    assert done.stdout == "Topup\n", done.stderr


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("topup = no_such_module:Topup", "provider topup (no_such_module:Topup) cannot be loaded"),
        ("topup = decimal:Decimal", "provider topup (decimal:Decimal) has no profile, credentials"),
        ("znet = orderwatch_topup:Topup", "provider znet (orderwatch_topup:Topup) is defined twice"),
    ],
)
def test_a_plug_in_that_does_not_fit_is_a_configuration_error(entry, words, tmp_path):
    done = plug_in(tmp_path, entry)
    assert done.returncode == 1 and words in done.stderr
