"""One test per mistake that config.yaml can hold: the snippet, and the only line it must give."""

from pathlib import Path

import pytest

from streams.config.loader import load
from streams.errors import ConfigError

GROUND = {"kafka": "kafka: {bootstrap_servers: embedded}", "database": "database: {url: embedded}"}

ACCOUNTS = """
integrations:
  - {id: znet-main, tenant_id: demo, provider: znet}
  - {id: znet-b, tenant_id: kral, provider: znet}
  - {id: codes-1, tenant_id: demo, provider: codes}
"""


def lines_of(tmp_path: Path, snippet: str, **environ: str) -> list[str]:
    """What is wrong with ``snippet`` plus the sections that every file needs."""
    ground = [line for name, line in GROUND.items() if f"\n{name}:" not in f"\n{snippet}"]
    path = tmp_path / "config.yaml"
    path.write_text("\n".join([snippet, *ground]), encoding="utf-8")
    try:
        load(path, environ)
    except ConfigError as error:
        return str(error).splitlines()
    return []


def integration(text: str) -> str:
    return f"integrations: [{{id: a, tenant_id: demo, provider: znet, {text}}}]"


def route(text: str) -> str:
    return ACCOUNTS + f"routes: [{{tenant_id: demo, package_id: p, {text}}}]"


def mapping(text: str) -> str:
    return ACCOUNTS + f"mappings: [{{tenant_id: demo, package_id: p, {text}}}]"


MISTAKES = {
    "session key that can be guessed": (
        "web: {session_key: hunter2}",
        "web.session_key is ***; expected at least 32 characters that nobody can guess",
    ),
    "session key that is a list": (
        "web: {session_key: [hunter2]}",
        "web.session_key is ***; expected text (put it in quotes)",
    ),
    "fewer requests than one a second": ("web: {rate: 6/m}", "web.rate is 0.1/s; expected at least 1/s"),
    "webhook without a secret": (
        "alerts: {webhook_url: 'https://alerts.example/hook'}",
        "alerts.webhook_secret is missing; expected whsec_ and base64 of 24 random bytes or more",
    ),
    "webhook secret that is none": (
        "alerts: {webhook_url: 'https://a.example/', webhook_secret: hunter2}",
        "alerts.webhook_secret is ***; expected whsec_ and base64 of 24 random bytes or more",
    ),
    "webhook address with a password": (
        "alerts: {webhook_url: 'https://me:hunter2@a.example/',"
        " webhook_secret: whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz}",
        "alerts.webhook_url is an address with a user in it; expected an address without; "
        "secrets have keys of their own",
    ),
    "alerts of no such code": ("alerts: {codes: [expird]}", "alerts.codes[0] is expird; expected expired"),
    "alerts command as one text": ("alerts: {command: mail -s}", "alerts.command is text; expected a list"),
    "collector that is no address": (
        "telemetry: {otlp_endpoint: collector}",
        "telemetry.otlp_endpoint is collector; expected http:// or https:// and a host",
    ),
    "sample above one": ("telemetry: {sample: 2}", "telemetry.sample is 2; expected at most 1"),
    # Unknown keys: the value is never shown, it may be a misspelt password.
    "unknown section": ("chekcs: {}", "chekcs is an unknown key; expected checks"),
    "unknown key": ("web: {prot: 1}", "web.prot is an unknown key; expected web.port"),
    "unknown key like nothing": (
        "table: {qqq: 1}",
        "table.qqq is an unknown key; expected one of keep_finished, window, keep_windows",
    ),
    "unknown key in a list": (
        integration("limits: {rat: 1/s}"),
        "integrations[0].limits.rat is an unknown key; expected integrations[0].limits.rate",
    ),
    "unknown security key": (
        "kafka: {bootstrap_servers: embedded, security: {pasword: hunter2}}",
        "kafka.security.pasword is an unknown key; expected kafka.security.password",
    ),
    "misspelt mapping key": (
        mapping('integration: znet-main, provider_package_id: "1", costs: "2"'),
        "mappings[0].costs is an unknown key; expected mappings[0].cost",
    ),
    # Units.
    "bare number": (
        "checks: {first_after: 60}",
        "checks.first_after is 60; expected a duration like 30s (ms, s, m or h)",
    ),
    "quoted bare number": (
        'checks: {first_after: "60"}',
        "checks.first_after is 60; expected a duration like 30s (ms, s, m or h)",
    ),
    "unknown unit": ("checks: {deadline: 1d}", "checks.deadline is 1d; expected a duration like 30s (ms, s, m or h)"),
    "fraction": ("checks: {deadline: 1.5h}", "checks.deadline is 1.5h; expected a duration like 30s (ms, s, m or h)"),
    "negative": (
        "checks: {sweep_slack: -5s}",
        "checks.sweep_slack is -5s; expected a duration like 30s (ms, s, m or h)",
    ),
    "no time at all": ("checks: {first_after: 0s}", "checks.first_after is 0s; expected a duration above 0 like 30s"),
    "more than a year": (
        "checks: {deadline: 9000h}",
        "checks.deadline is 9000h; expected a duration of at most a year (8784h)",
    ),
    "duration in a list": (
        "checks: {long_pending_after: [5m, 15]}",
        "checks.long_pending_after[1] is 15; expected a duration like 30s (ms, s, m or h)",
    ),
    "bare rate": (
        integration("limits: {rate: 10}"),
        "integrations[0].limits.rate is 10; expected a rate above 0 like 10/s or 600/m",
    ),
    "no rate": (
        integration("limits: {check_rate: 0/s}"),
        "integrations[0].limits.check_rate is 0/s; expected a rate above 0 like 10/s or 600/m",
    ),
    # Types and ranges.
    "no partitions": (
        "kafka: {bootstrap_servers: embedded, partitions: 0}",
        "kafka.partitions is 0; expected at least 1",
    ),
    "half a partition": (
        "kafka: {bootstrap_servers: embedded, partitions: 1.5}",
        "kafka.partitions is 1.5; expected a whole number",
    ),
    "true is no number": (
        "kafka: {bootstrap_servers: embedded, partitions: true}",
        "kafka.partitions is true; expected a whole number",
    ),
    "no replicas": (
        "kafka: {bootstrap_servers: embedded, replication_factor: 0}",
        "kafka.replication_factor is 0; expected at least 1",
    ),
    "port too high": ("web: {port: 70000}", "web.port is 70000; expected at most 65535"),
    "unknown word": ("checks: {on_deadline: drop}", "checks.on_deadline is drop; expected 'attention' or 'fail'"),
    "no flag": (integration("enabled: maybe"), "integrations[0].enabled is maybe; expected true or false"),
    "no list": ("routes: {a: b}", "routes is no list; expected a list"),
    "empty list": ("routes:", "routes is empty; expected a list"),
    "no mapping": ("web: 127.0.0.1", "web is text; expected a mapping"),
    "empty section": ("web:", "web is empty; expected a mapping"),
    "number without quotes": (
        mapping("integration: znet-main, provider_package_id: 12345"),
        "mappings[0].provider_package_id is 12345; expected text (put it in quotes)",
    ),
    "wire key without quotes": (
        mapping('integration: znet-main, provider_package_id: "1", oyun: 100'),
        "mappings[0].oyun is 100; expected text (put it in quotes)",
    ),
    "parameter without quotes": (
        mapping('integration: znet-main, provider_package_id: "1", params: {server: 1}'),
        "mappings[0].params.server is 1; expected text (put it in quotes)",
    ),
    "odd id": (
        "integrations: [{id: a b, tenant_id: demo, provider: znet}]",
        'integrations[0].id is "a b"; expected 1 to 64 characters of A-Z a-z 0-9 . _ : -',
    ),
    "no currency": (
        integration("currency: lira"),
        "integrations[0].currency is lira; expected an ISO currency like TRY",
    ),
    "negative money": (integration("low_balance: -1"), "integrations[0].low_balance is -1; expected at least 0"),
    "share above one": (
        "dispatch: {max_dead_letter_ratio: 2}",
        "dispatch.max_dead_letter_ratio is 2; expected at most 1",
    ),
    "share of nothing": (
        "dispatch: {max_dead_letter_ratio: 0}",
        "dispatch.max_dead_letter_ratio is 0; expected more than 0",
    ),
    "missing key": (
        "integrations: [{id: a, tenant_id: demo}]",
        "integrations[0].provider is missing; expected znet, barakat, apstore, codes, or the name of a plug-in",
    ),
    # The environment.
    "missing variable": (
        "kafka: {bootstrap_servers: '${BROKERS}'}",
        "kafka.bootstrap_servers is ${BROKERS}; expected the environment variable BROKERS to be set",
    ),
    "missing credential": (
        integration("credentials: {kod: 'x${ZNET_KOD}'}"),
        "integrations[0].credentials.kod is ${ZNET_KOD}; expected the environment variable ZNET_KOD to be set",
    ),
    "odd reference": ("web: {host: '${A B}'}", 'web.host is "${A B}"; expected ${NAME} or ${NAME:-default}'),
    "odd secret reference": (
        "database: {url: 'postgresql://hunter2${'}",
        "database.url is ***; expected ${NAME} or ${NAME:-default}",
    ),
    # Kafka and the database.
    "no servers": ("kafka: {bootstrap_servers: ''}", 'kafka.bootstrap_servers is ""; expected text that is not empty'),
    "server without port": (
        "kafka: {bootstrap_servers: 'a:9092,b'}",
        "kafka.bootstrap_servers is a:9092,b; expected embedded, or host:port separated by commas",
    ),
    "SASL without password": (
        "kafka: {bootstrap_servers: embedded, security: {protocol: SASL_SSL, mechanism: PLAIN, username: u}}",
        "kafka.security.password is missing; expected a value with protocol SASL_SSL",
    ),
    "password without SASL": (
        "kafka: {bootstrap_servers: embedded, security: {password: hunter2}}",
        "kafka.security.protocol is PLAINTEXT;"
        " expected SASL_SSL or SASL_PLAINTEXT with mechanism, username or password",
    ),
    "authority without TLS": (
        "kafka: {bootstrap_servers: embedded, security: {ca: ca.pem}}",
        "kafka.security.protocol is PLAINTEXT; expected SSL or SASL_SSL with ca, cert or key",
    ),
    "certificate without key": (
        "kafka: {bootstrap_servers: embedded, security: {protocol: SSL, cert: c.pem}}",
        "kafka.security.key is missing; expected a file, as cert is given",
    ),
    "rebalance shorter than session": (
        "kafka: {bootstrap_servers: embedded, rebalance_timeout: 5s}",
        "kafka.rebalance_timeout is 5s; expected at least kafka.session_timeout (10s)",
    ),
    "other database": (
        "database: {url: 'mysql://u:hunter2@h/d'}",
        "database.url is ***; expected embedded, or postgresql://user:password@host/name",
    ),
    # Schedules.
    "deadline before the first check": (
        "checks: {first_after: 2m, deadline: 1m}",
        "checks.deadline is 1m; expected at least checks.first_after (2m)",
    ),
    "base above max": (
        "checks: {backoff: {base: 20m}}",
        "checks.backoff.base is 20m; expected at most checks.backoff.max (10m)",
    ),
    "shrinking backoff": ("checks: {backoff: {factor: 0.5}}", "checks.backoff.factor is 0.5; expected at least 1"),
    "a topic for every second": (
        "checks: {backoff: {factor: 1.01}}",
        "checks.backoff.factor is 1.01; expected a factor that reaches max within 24 steps, or 1",
    ),
    "falling thresholds": (
        "checks: {long_pending_after: [15m, 5m]}",
        "checks.long_pending_after[1] is 5m; expected more than the one before (15m)",
    ),
    "watch shorter than its step": (
        "checks: {after_final: {every: 2h, until: 1h}}",
        "checks.after_final.until is 1h; expected 0s, or at least checks.after_final.every (2h)",
    ),
    "lease shorter than the call": (
        ACCOUNTS + "dispatch: {lease: 30s}",
        "dispatch.lease is 30s; expected at least 35s: timeout + connect_timeout of znet-main + dispatch.lease_margin",
    ),
    # Integrations.
    "same id twice": (
        "integrations: [{id: a, tenant_id: demo, provider: znet}, {id: a, tenant_id: kral, provider: znet}]",
        "integrations[1].id is a; expected an id of its own (integrations[0] has it)",
    ),
    "no address": (
        integration("base_url: 'ftp://x'"),
        "integrations[0].base_url is ftp://x; expected an address like https://host/path",
    ),
    "open network": (
        integration("base_url: 'http://bayi.example'"),
        "integrations[0].base_url is http://bayi.example;"
        " expected https, or options.allow_http: true where the network is trusted",
    ),
    "credentials in the address": (
        integration("base_url: 'https://u:hunter2@bayi.example/?x=hunter2'"),
        "integrations[0].base_url is https://***@bayi.example/; expected no user, password, query or fragment in it",
    ),
    "odd port": (
        integration("base_url: 'https://bayi.example:99999'"),
        "integrations[0].base_url is https://bayi.example:99999; expected an address like https://host/path",
    ),
    "connecting longer than the call": (
        integration("limits: {connect_timeout: 30s}"),
        "integrations[0].limits.connect_timeout is 30s; expected at most integrations[0].limits.timeout (20s)",
    ),
    "own schedule past the deadline": (
        integration("checks: {first_after: 48h}"),
        "integrations[0].checks.first_after is 48h; expected at most checks.deadline (24h)",
    ),
    "own backoff": (
        integration("checks: {backoff: {max: 10s}}"),
        "integrations[0].checks.backoff.base is 30s; expected at most integrations[0].checks.backoff.max (10s)",
    ),
    # Routes.
    "same route twice": (
        "routes: [{tenant_id: t, package_id: p, mode: manual}, {tenant_id: t, package_id: p, mode: manual}]",
        "routes[1] is t/p; expected one route per tenant and package (routes[0] is the same)",
    ),
    "route to nobody": (
        route("mode: auto, primary: znet-x"),
        "routes[0].primary is znet-x; expected the id of an integration",
    ),
    "route to a stranger": (
        route("mode: auto, primary: znet-b"),
        "routes[0].primary is znet-b; expected an integration of tenant demo",
    ),
    "fallback to a stranger": (
        route("mode: auto, primary: znet-main, fallback: znet-b"),
        "routes[0].fallback is znet-b; expected an integration of tenant demo",
    ),
    "auto and manual": (
        route("mode: auto, provider_type: manual, primary: znet-main"),
        "routes[0].provider_type is manual; expected external or codes with mode auto",
    ),
    "auto without primary": (
        route("mode: auto, provider_type: external"),
        "routes[0].primary is missing; expected an integration with mode auto and external",
    ),
    "codes without primary": (
        route("mode: auto, provider_type: codes"),
        "routes[0].primary is missing; expected an integration with mode auto and codes",
    ),
    "codes from elsewhere": (
        route("mode: auto, provider_type: codes, primary: znet-main"),
        "routes[0].primary is znet-main; expected an integration of provider codes",
    ),
    "fallback is primary": (
        route("mode: auto, primary: znet-main, fallback: znet-main"),
        "routes[0].fallback is znet-main; expected another integration than primary",
    ),
    "fallback alone": (
        route("mode: manual, fallback: znet-main"),
        "routes[0].fallback is znet-main; expected a primary beside it",
    ),
    # Mappings.
    "same mapping twice": (
        ACCOUNTS
        + "mappings:\n"
        + '  - {tenant_id: demo, package_id: p, integration: znet-main, provider_package_id: "1"}\n' * 2,
        "mappings[1] is demo/p/znet-main;"
        " expected one mapping per tenant, package and integration (mappings[0] is the same)",
    ),
    "mapping to nobody": (
        mapping('integration: znet-x, provider_package_id: "1"'),
        "mappings[0].integration is znet-x; expected the id of an integration",
    ),
    "mapping to a stranger": (
        mapping('integration: znet-b, provider_package_id: "1"'),
        "mappings[0].integration is znet-b; expected an integration of tenant demo",
    ),
    # YAML.
    "same key twice": ("web: {host: a,\n  host: b}", "web.host is given twice (lines 1 and 2); expected it once"),
    "same section twice": ("web: {}\nweb: {}", "web is given twice (lines 1 and 2); expected it once"),
    "key that is a number": (
        integration("options: {100: funds}"),
        "integrations[0].options is given a key that is not text (line 1); expected text keys (put them in quotes)",
    ),
    "tag": ("web: {host: !secret x}", "web.host is a tagged value; expected plain YAML without tags"),
    "number that is none": ("web: {port: 0x_}", "web.port is 0x_; expected a number, true, false, or text in quotes"),
    "infinite number": (
        "dispatch: {max_dead_letter_ratio: .inf}",
        "dispatch.max_dead_letter_ratio is .inf; expected a number below 2^63",
    ),
    "NUL": ('web: {host: "a\\0"}', "web.host is holding a NUL or half a character; expected text"),
}


@pytest.mark.parametrize(("snippet", "line"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_in_exactly_one_line(tmp_path: Path, snippet: str, line: str) -> None:
    assert lines_of(tmp_path, snippet) == [f"config.yaml: {line}"]


def test_text_that_is_not_yaml_is_told_with_its_line_and_without_its_content(tmp_path: Path) -> None:
    assert lines_of(tmp_path, "web: {host: a}\nchecks: {first_after: *hunter2}") == [
        "config.yaml: line 2 is not valid YAML (found undefined alias ...);"
        " expected spaces for indentation, quotes around special characters"
    ]


NO_MAPPINGS = ["", "# nothing\n", "[]", "hello", "42", "a: 1\n---\nb: 2", "\x01", "a: &a [*a]", "[" * 5000]


@pytest.mark.parametrize("text", NO_MAPPINGS)
def test_a_file_that_is_no_mapping_is_one_mistake(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"\Aconfig\.yaml: [^\n]* is [^\n]*; expected [^\n]*\Z"):
        load(path, {})


def test_required_sections_that_are_missing_are_told(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("web: {}", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert str(caught.value).splitlines() == [
        "config.yaml: kafka is missing; expected a mapping: the log",
        "config.yaml: database is missing; expected a mapping: the memory",
    ]


def test_a_file_that_is_not_there_or_not_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml cannot be read \(No such file or directory\)"):
        load(tmp_path / "nowhere.yaml", {})
    (tmp_path / "config.yaml").write_bytes(b"web: \xff")
    with pytest.raises(ConfigError, match=r"config\.yaml: byte 5 is not UTF-8"):
        load(tmp_path / "config.yaml", {})


def test_all_mistakes_are_told_at_once_and_none_twice(tmp_path: Path) -> None:
    snippet = """
kafka: {bootstrap_servers: "${BROKERS}", partitions: 0}
checks: {deadline: 1m, first_after: 2m, sweep_batch: x, backoff: {base: 1}}
integrations:
  - {id: a, tenant_id: demo, provider: znet, base_url: "http://bayi.example", credentials: {kod: "${KOD}"}}
routes:
  - {tenant_id: demo, package_id: p, mode: auto, primary: "${WHO}"}
  - {tenant_id: demo, package_id: q, mode: auto, primary: b, fallback: a}
"""
    assert [line.removeprefix("config.yaml: ").partition(" is ")[0] for line in lines_of(tmp_path, snippet)] == [
        "kafka.bootstrap_servers",
        "kafka.partitions",
        "checks.backoff.base",
        "checks.sweep_batch",
        "integrations[0].credentials.kod",
        "routes[0].primary",
        "checks.deadline",
        "integrations[0].base_url",
        "routes[1].primary",
    ]


def test_a_rule_is_not_applied_to_a_value_that_could_not_be_read(tmp_path: Path) -> None:
    assert lines_of(tmp_path, "checks: {first_after: 2, deadline: 30s}") == [
        "config.yaml: checks.first_after is 2; expected a duration like 30s (ms, s, m or h)"
    ]


def test_an_integration_that_is_wrong_in_itself_is_still_known_to_routes(tmp_path: Path) -> None:
    snippet = """
integrations: [{id: a, tenant_id: demo}]
routes: [{tenant_id: demo, package_id: p, mode: auto, primary: a}]
mappings: [{tenant_id: demo, package_id: p, integration: a, provider_package_id: "1"}]
"""
    [line] = lines_of(tmp_path, snippet)
    assert line.startswith("config.yaml: integrations[0].provider is missing")


@pytest.mark.parametrize(
    "base_url", ["http://127.0.0.1:9100/x", "http://localhost/x", "http://[::1]:1/", "https://a.b"]
)
def test_an_address_on_this_machine_or_with_tls_is_fine(tmp_path: Path, base_url: str) -> None:
    assert lines_of(tmp_path, integration(f"base_url: '{base_url}'")) == []


@pytest.mark.parametrize("flag", ["true", '"true"', '"${ALLOW:-true}"'])
def test_an_open_network_can_be_allowed(tmp_path: Path, flag: str) -> None:
    assert lines_of(tmp_path, integration(f"base_url: 'http://simulator:9100', options: {{allow_http: {flag}}}")) == []
