from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from streams.config.loader import BackoffConfig, CatalogueDocs, Config, LimitsConfig, load, with_catalog
from streams.errors import ConfigError
from tests.fakes import SCHEDULE

SHIPPED = Path(__file__).parents[2] / "config.yaml"

TEXT = """
kafka:
  bootstrap_servers: a:9092, b:9092
  security: {protocol: SASL_SSL, mechanism: PLAIN, username: u, password: "${KP}"}
database: {url: "${DATABASE_URL:-embedded}", pool_size: "${POOL:-3}"}
checks: {first_after: 500ms, deadline: 2h}
integrations:
  - id: znet-main
    tenant_id: demo
    provider: znet
    base_url: ${URL:-http://127.0.0.1:1}/znet
    credentials: {kod: "${KOD}", sifre: "${SIFRE}"}
    limits: {rate: 600/m, timeout: 8s}
    low_balance: "12.50"
  - {id: b, tenant_id: demo, provider: barakat, checks: {first_after: 7s, backoff: {base: 1s, factor: 3, max: 10s}}}
routes:
  - {tenant_id: demo, package_id: p, mode: auto, primary: znet-main, fallback: b}
mappings:
  - {tenant_id: demo, package_id: p, integration: znet-main, provider_package_id: "1", oyun: "100", kupur: UC60}
  - {tenant_id: demo, package_id: p, integration: b, provider_package_id: "2", params: {playerId: "{user_identifier}"}}
"""
ENVIRON = {"KP": "kafka-hunter2", "KOD": "kod-hunter2", "SIFRE": "sifre-hunter2"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def config(file: Path) -> Config:
    return load(file, ENVIRON)


def test_values_carry_their_units_and_the_environment(config: Config) -> None:
    assert config.database.url.get_secret_value() == "embedded"
    assert config.database.pool_size == 3
    assert (config.checks.first_after, config.checks.deadline) == (0.5, 7200.0)
    account = config.integrations[0]
    assert account.base_url == "http://127.0.0.1:1/znet"
    assert account.credentials["sifre"].get_secret_value() == "sifre-hunter2"
    assert (account.limits.rate, account.limits.check_rate, account.low_balance) == (10.0, 10.0, Decimal("12.50"))
    assert config.mappings[0].wire == {"oyun": "100", "kupur": "UC60"}


def test_an_empty_variable_gives_way_to_its_default(file: Path) -> None:
    assert load(file, {**ENVIRON, "POOL": ""}).database.pool_size == 3
    assert load(file, {**ENVIRON, "POOL": "9"}).database.pool_size == 9


def test_look_ups_find_what_is_there_and_nothing_else(config: Config) -> None:
    assert config.integration("b") is config.integrations[1]
    assert config.route("demo", "p") is config.routes[0]
    assert config.mapping("demo", "p", "b") is config.mappings[1]
    assert config.integration("x") is None
    assert config.route("kral", "p") is None
    assert config.mapping("demo", "p", "x") is None


def test_tiers_are_the_distinct_delays_of_all_schedules(config: Config) -> None:
    # requeue, first, own first 7 s, own steps 1 3 9 10 s, lease 8 + 5 + 10 s, global steps, after-final watch.
    own = {5.0, 0.5, 7.0, 1.0, 3.0, 9.0, 10.0, 23.0}
    assert config.tiers() == tuple(sorted(own | {30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 3600.0}))
    assert [config.tier_name(seconds) for seconds in (0.5, 30.0, 600.0)] == [
        "orders.retry.500ms",
        "orders.retry.30s",
        "orders.retry.600s",
    ]


def test_every_delay_a_schedule_can_ask_for_is_a_tier(config: Config) -> None:
    for integration in config.integrations:
        delays = [config.first_after(integration), *config.backoff(integration).steps]
        assert set(delays) <= set(config.tiers())


@given(base=st.integers(1, 10**6), factor=st.floats(1, 1e300), top=st.integers(1, 10**9), n=st.integers(1, 10**6))
@example(base=1000, factor=2.0, top=10_000, n=1025)
@example(base=5000, factor=2.0, top=60_000, n=10**6)
def test_backoff_never_falls_and_never_overflows(base: int, factor: float, top: int, n: int) -> None:
    steps = BackoffConfig(base=base / 1000, factor=factor, max=top / 1000).steps
    assert list(steps) == sorted(set(steps))
    schedule = replace(SCHEDULE, backoff_steps_s=steps)
    assert schedule.backoff_s(1) == min(base, top) / 1000
    assert schedule.backoff_s(n) <= schedule.backoff_s(n + 1) <= top / 1000


def test_a_lease_outlives_the_call_it_covers(config: Config) -> None:
    for integration in config.integrations:
        assert config.lease_s(integration) > integration.limits.timeout + integration.limits.connect_timeout


def test_secrets_are_in_no_repr_and_no_dump(config: Config) -> None:
    for text in (repr(config), str(config), repr(config.integrations), str(config.model_dump()), str(config.docs)):
        assert "hunter2" not in text
    assert config.docs.integrations[0]["credentials"] == {"kod": "${KOD}", "sifre": "${SIFRE}"}


# The secret stands where it belongs and something near it is wrong, or it stands where it does not belong.
SPILLS = [
    "database: {url: 'mysql://u:hunter2@h/d'}",
    "database: hunter2",
    "database: {url: [hunter2]}",
    "database: {url: 'postgresql://hunter2${'}",
    "database: {pasword: hunter2}",
    "kafka: {bootstrap_servers: 'u:hunter2@host'}",
    "kafka: {bootstrap_servers: embedded, security: 'password=hunter2'}",
    "kafka: {bootstrap_servers: embedded, security: [password, hunter2]}",
    "kafka: {bootstrap_servers: embedded, security: {password: 'hunter2${'}}",
    "kafka: {bootstrap_servers: embedded, security: {password: !s hunter2}}",
    "kafka: {bootstrap_servers: embedded, security: {password: *hunter2}}",
    "kafka: {bootstrap_servers: embedded, security: {password: hunter2}}",
    "integrations: [{id: a, tenant_id: demo, provider: znet, credentials: hunter2}]",
    "integrations: [{id: a, tenant_id: demo, provider: znet, credentials: [hunter2]}]",
    "integrations: [{id: a, tenant_id: demo, provider: znet, credentials: {kod: {x: hunter2}}}]",
    "integrations: [{id: a, tenant_id: demo, provider: znet, credentials: {kod: hunter2, kod: hunter2}}]",
    "integrations: [{id: a, tenant_id: demo, credentials: {kod: hunter2}}]",
    "integrations: [{id: a, tenant_id: demo, provider: znet, sifre: hunter2}]",
    "integrations: [{id: a, tenant_id: demo, provider: znet, base_url: 'u:hunter2@h/x'}]",
    "integrations: [{id: a, tenant_id: demo, provider: znet, base_url: 'ftp://h/x?sifre=hunter2'}]",
    "integrations: hunter2",
    "integrations: [{id: a, tenant_id: demo, provider: znet, credentials: {kod: 4711}}]",
    "kafka: {bootstrap_servers: embedded, security: {password: 4711}}",
    "database: {url: 4711}",
]


@pytest.mark.parametrize("text", SPILLS)
def test_no_mistake_shows_a_secret(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert "hunter2" not in str(caught.value)
    assert "4711" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_stored_catalogue_takes_the_place_of_the_files(config: Config) -> None:
    docs = CatalogueDocs(
        [{"id": "z", "tenant_id": "demo", "provider": "znet", "credentials": {"kod": "${KOD}"}}],
        [{"tenant_id": "demo", "package_id": "p", "mode": "auto", "primary": "z"}],
        [],
    )
    followed = with_catalog(config, docs, ENVIRON)
    assert [item.id for item in followed.integrations] == ["z"]
    assert followed.integrations[0].credentials["kod"].get_secret_value() == "kod-hunter2"
    assert followed.docs == docs
    assert followed.kafka == config.kafka
    assert followed.fingerprint() != config.fingerprint()


def test_a_stored_catalogue_is_checked_like_the_file_and_names_its_entries(config: Config) -> None:
    docs = CatalogueDocs(
        [{"id": "z", "tenant_id": "demo", "provider": "znet", "credentials": {"kod": "${NOPE}"}}],
        [{"tenant_id": "demo", "package_id": "p", "mode": "auto", "primary": "x"}],
        [{"tenant_id": "demo", "package_id": "p", "integration": "z", "provider_package_id": 1}],
    )
    with pytest.raises(ConfigError) as caught:
        with_catalog(config, docs, {})
    assert str(caught.value).splitlines() == [
        "stored catalogue: integrations[z].credentials.kod is ${NOPE};"
        " expected the environment variable NOPE to be set",
        "stored catalogue: mappings[demo/p/z].provider_package_id is 1; expected text (put it in quotes)",
        "stored catalogue: routes[demo/p].primary is x; expected the id of an integration",
    ]


def test_the_fingerprint_is_of_the_content_not_of_its_order(config: Config) -> None:
    docs = config.docs
    turned = CatalogueDocs(docs.integrations[::-1], docs.routes, docs.mappings[::-1])
    assert with_catalog(config, turned, ENVIRON).fingerprint() == config.fingerprint()


def test_extra_checks_see_what_is_readable_and_add_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "kafka: {}\nintegrations: [{id: a, tenant_id: demo}, {id: b, tenant_id: demo, provider: znet}]\n",
        encoding="utf-8",
    )

    def extra(config: Config) -> list[str]:
        return [f"{item.key}.credentials.kod is missing; expected text" for item in config.integrations]

    with pytest.raises(ConfigError) as caught:
        load(path, {}, extra)
    assert "config.yaml: integrations[1].credentials.kod is missing; expected text" in str(caught.value).splitlines()


def test_code_may_pass_plain_numbers() -> None:
    limits = LimitsConfig(rate=3, timeout=0.2)
    assert (limits.rate, limits.check_rate, limits.timeout) == (3.0, 3.0, 0.2)


def test_the_shipped_file_is_right_with_an_empty_environment() -> None:
    config = load(SHIPPED, {})
    assert {item.tenant_id for item in config.integrations} == {"demo", "kral"}
    for route in config.routes:
        for integration_id in filter(None, (route.primary, route.fallback)):
            assert config.mapping(route.tenant_id, route.package_id, integration_id), (route, integration_id)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["30s", "10/s", "${X}", "${X:-y}", "embedded", "auto", "a", "https://x", "hunter2${"]),
)
KEYS = st.one_of(
    st.sampled_from(
        [
            *Config.model_fields,
            *("id", "tenant_id", "package_id", "provider", "primary", "mode", "credentials", "limits", "rate", "url"),
            *("bootstrap_servers", "security", "password", "backoff", "base", "max", "integration", "base_url"),
        ]
    ),
    st.text(max_size=8),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | SCALARS.filter(lambda key: key != key), inner),
    max_leaves=25,
)


def _load(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        load(path, {"X": "1"})
    except ConfigError as error:
        return str(error)
    return ""


WRITING_A_FILE = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(suppress_health_check=WRITING_A_FILE, max_examples=150, deadline=None)
@given(tree=st.dictionaries(KEYS, TREES))
def test_no_tree_of_yaml_raises_anything_but_a_configuration_error(tmp_path: Path, tree: dict[str, Any]) -> None:
    for line in _load(tmp_path / "config.yaml", yaml.safe_dump(tree)).splitlines():
        assert line.startswith("config.yaml: ")
        assert " is " in line
        assert "; expected " in line


@settings(suppress_health_check=WRITING_A_FILE, max_examples=150, deadline=None)
@given(text=st.text(alphabet=st.sampled_from("ab:-{}[],&*!'\"#|>%@`\n\t 0.~<?\\$\x00é\ud800"), max_size=40))
def test_no_text_raises_anything_but_a_configuration_error(tmp_path: Path, text: str) -> None:
    assert _load(tmp_path / "config.yaml", text)
