"""Rules that span several keys of config.yaml. Pure: blocks in, mistakes out.

Where a rule compares two keys, the line names the other one as ``key (value)``.
"""

import base64
import difflib
import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from streams.config.models import (
    MOST_STEPS,
    AlertsConfig,
    BackoffConfig,
    ChecksConfig,
    Config,
    DatabaseConfig,
    IntegrationConfig,
    KafkaConfig,
    MappingConfig,
    RouteConfig,
    TelemetryConfig,
    WebConfig,
)
from streams.config.problems import ConfigProblem, key_text, shown
from streams.config.types import duration_text
from streams.order import AttentionCode

#: Bytes of the key that signs webhooks.
LEAST_WEBHOOK_KEY = 24
_WEBHOOK_SECRET = f"whsec_ and base64 of {LEAST_WEBHOOK_KEY} random bytes or more"

#: Characters of the key that seals log-ins.
LEAST_SESSION_KEY = 32

_DATABASE_URL = re.compile(r"postgresql(\+psycopg2)?://")


def kafka_mistakes(kafka: KafkaConfig) -> Iterator[ConfigProblem]:
    if kafka.bootstrap_servers != "embedded":
        for server in kafka.bootstrap_servers.split(","):
            host, _, port = server.strip().rpartition(":")
            if not host or not re.match(r"[0-9]{1,5}\Z", port) or not 0 < int(port) < 65536:
                found = shown((), kafka.bootstrap_servers)
                yield ConfigProblem("kafka.bootstrap_servers", found, "embedded, or host:port separated by commas")
                break
    security = kafka.security
    if security.protocol.startswith("SASL"):
        for name in ("mechanism", "username", "password"):
            if getattr(security, name) is None:
                yield ConfigProblem(f"kafka.security.{name}", "missing", f"a value with protocol {security.protocol}")
    elif security.mechanism or security.username or security.password:
        expected = "SASL_SSL or SASL_PLAINTEXT with mechanism, username or password"
        yield ConfigProblem("kafka.security.protocol", security.protocol, expected)
    if not security.protocol.endswith("SSL") and (security.ca or security.cert or security.key):
        yield ConfigProblem("kafka.security.protocol", security.protocol, "SSL or SASL_SSL with ca, cert or key")
    if bool(security.cert) != bool(security.key):
        missing, given = ("key", "cert") if security.cert else ("cert", "key")
        yield ConfigProblem(f"kafka.security.{missing}", "missing", f"a file, as {given} is given")
    if kafka.rebalance_timeout < kafka.session_timeout:
        expected = f"at least kafka.session_timeout ({duration_text(kafka.session_timeout)})"
        yield ConfigProblem("kafka.rebalance_timeout", duration_text(kafka.rebalance_timeout), expected)


def missing_files(config: Config) -> Iterator[str]:
    """A line for each file of ``kafka.security`` that is not there; ``config`` may lack its kafka block."""
    kafka = getattr(config, "kafka", None)
    if kafka is None:
        return
    for name in ("ca", "cert", "key"):
        path = getattr(kafka.security, name)
        if path and not Path(path).is_file():
            yield f"kafka.security.{name} is {path}, which is no file; expected a PEM file that can be read"


def database_mistakes(database: DatabaseConfig) -> Iterator[ConfigProblem]:
    url = database.url.get_secret_value()
    if url != "embedded" and not _DATABASE_URL.match(url):
        yield ConfigProblem("database.url", "***", "embedded, or postgresql://user:password@host/name")


def web_mistakes(web: WebConfig) -> Iterator[ConfigProblem]:
    key = web.session_key
    if key is not None and len(key.get_secret_value()) < LEAST_SESSION_KEY:
        yield ConfigProblem("web.session_key", "***", f"at least {LEAST_SESSION_KEY} characters that nobody can guess")
    if web.rate < 1:
        yield ConfigProblem("web.rate", f"{web.rate:g}/s", "at least 1/s")


def alerts_mistakes(alerts: AlertsConfig) -> Iterator[ConfigProblem]:
    yield from _url_mistakes("alerts.webhook_url", alerts.webhook_url)
    secret = alerts.webhook_secret
    if alerts.webhook_url and secret is None:
        yield ConfigProblem("alerts.webhook_secret", "missing", _WEBHOOK_SECRET)
    elif secret is not None and not _is_webhook_secret(secret.get_secret_value()):
        yield ConfigProblem("alerts.webhook_secret", "***", _WEBHOOK_SECRET)
    if alerts.command and not alerts.command[0].strip():
        yield ConfigProblem("alerts.command[0]", "empty", "a program")
    for index, code in enumerate(alerts.codes):
        if code not in set(AttentionCode):
            close = difflib.get_close_matches(code, list(AttentionCode), n=1)
            yield ConfigProblem(
                f"alerts.codes[{index}]", shown((), code), close[0] if close else ", ".join(AttentionCode)
            )


def _is_webhook_secret(text: str) -> bool:
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        return False
    return text.startswith("whsec_") and len(key) >= LEAST_WEBHOOK_KEY


def telemetry_mistakes(telemetry: TelemetryConfig) -> Iterator[ConfigProblem]:
    yield from _url_mistakes("telemetry.otlp_endpoint", telemetry.otlp_endpoint)


def _url_mistakes(key: str, url: str | None) -> Iterator[ConfigProblem]:
    """An address of somebody else's server; what it holds before an @ is a secret and is not shown."""
    if url is None:
        return
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good, parts = False, None
    if parts is not None and "@" in parts.netloc:
        yield ConfigProblem(key, "an address with a user in it", "an address without; secrets have keys of their own")
    elif not good:
        yield ConfigProblem(key, "no address" if "@" in url else shown((), url), "http:// or https:// and a host")


def checks_mistakes(checks: ChecksConfig) -> Iterator[ConfigProblem]:
    if checks.deadline < checks.first_after:
        expected = f"at least checks.first_after ({duration_text(checks.first_after)})"
        yield ConfigProblem("checks.deadline", duration_text(checks.deadline), expected)
    yield from _backoff_mistakes("checks.backoff", checks.backoff)
    after = checks.long_pending_after
    for index in range(1, len(after)):
        if after[index] <= after[index - 1]:
            expected = f"more than the one before ({duration_text(after[index - 1])})"
            yield ConfigProblem(f"checks.long_pending_after[{index}]", duration_text(after[index]), expected)
    final = checks.after_final
    if 0 < final.until < final.every:
        expected = f"0s, or at least checks.after_final.every ({duration_text(final.every)})"
        yield ConfigProblem("checks.after_final.until", duration_text(final.until), expected)


def _backoff_mistakes(key: str, backoff: BackoffConfig) -> Iterator[ConfigProblem]:
    if backoff.base > backoff.max:
        yield ConfigProblem(
            f"{key}.base", duration_text(backoff.base), f"at most {key}.max ({duration_text(backoff.max)})"
        )
    elif len(backoff.steps) > MOST_STEPS:
        expected = f"a factor that reaches max within {MOST_STEPS} steps, or 1"
        yield ConfigProblem(f"{key}.factor", f"{backoff.factor:g}", expected)


def lease_mistakes(config: Config) -> Iterator[ConfigProblem]:
    """The guard against buying twice: a sending must outlive the call it covers."""
    lease = config.dispatch.lease
    if lease is None or not config.integrations:
        return
    longest = max(config.integrations, key=lambda item: item.limits.timeout + item.limits.connect_timeout)
    shortest = longest.limits.timeout + longest.limits.connect_timeout + config.dispatch.lease_margin
    if lease < shortest:
        covered = f"timeout + connect_timeout of {longest.id} + dispatch.lease_margin"
        expected = f"at least {duration_text(shortest)}: {covered}"
        yield ConfigProblem("dispatch.lease", duration_text(lease), expected)


def integration_mistakes(integrations: Sequence[IntegrationConfig], deadline: float | None) -> Iterator[ConfigProblem]:
    """``deadline`` is checks.deadline in seconds, None when it was not readable."""
    seen: dict[str, str] = {}
    for integration in integrations:
        key = integration.key
        if integration.id in seen:
            yield ConfigProblem(f"{key}.id", integration.id, f"an id of its own ({seen[integration.id]} has it)")
        seen.setdefault(integration.id, key)
        yield from _address_mistakes(integration)
        limits = integration.limits
        if limits.connect_timeout > limits.timeout:
            expected = f"at most {key}.limits.timeout ({duration_text(limits.timeout)})"
            yield ConfigProblem(f"{key}.limits.connect_timeout", duration_text(limits.connect_timeout), expected)
        first_after = integration.checks.first_after
        if first_after and deadline is not None and first_after > deadline:
            expected = f"at most checks.deadline ({duration_text(deadline)})"
            yield ConfigProblem(f"{key}.checks.first_after", duration_text(first_after), expected)
        if integration.checks.backoff:
            yield from _backoff_mistakes(f"{key}.checks.backoff", integration.checks.backoff)


def _address_mistakes(integration: IntegrationConfig) -> Iterator[ConfigProblem]:
    if integration.base_url is None:
        return
    key, found = f"{integration.key}.base_url", shown((), integration.base_url.partition("?")[0])
    trusted = integration.options.get("allow_http") in (True, "true")
    try:
        url = urlsplit(integration.base_url)
        host, _ = url.hostname, url.port
    except ValueError:
        yield ConfigProblem(key, found, "an address like https://host/path")
        return
    if url.scheme not in ("http", "https") or not host or re.search(r"\s", integration.base_url):
        yield ConfigProblem(key, found, "an address like https://host/path")
    elif url.username is not None or url.password is not None or url.query or url.fragment:
        yield ConfigProblem(key, found, "no user, password, query or fragment in it")
    elif url.scheme == "http" and not _is_loopback(host) and not trusted:
        yield ConfigProblem(key, found, "https, or options.allow_http: true where the network is trusted")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def route_mistakes(
    routes: Sequence[RouteConfig], integrations: Sequence[IntegrationConfig], unreadable: frozenset[str]
) -> Iterator[ConfigProblem]:
    """``unreadable``: ids of integrations that are in the file but wrong in themselves."""
    known = {integration.id: integration for integration in integrations}
    seen: dict[tuple[str, str], str] = {}
    for route in routes:
        key, name = route.key, (route.tenant_id, route.package_id)
        if name in seen:
            found = f"{route.tenant_id}/{shown((), route.package_id)}"
            yield ConfigProblem(key, found, f"one route per tenant and package ({seen[name]} is the same)")
        seen.setdefault(name, key)
        for field in ("primary", "fallback"):
            yield from _owner_mistakes(f"{key}.{field}", getattr(route, field), route.tenant_id, known, unreadable)
        if route.fallback and not route.primary:
            yield ConfigProblem(f"{key}.fallback", route.fallback, "a primary beside it")
        elif route.fallback and route.fallback == route.primary:
            yield ConfigProblem(f"{key}.fallback", route.fallback, "another integration than primary")
        if route.mode == "auto":
            yield from _auto_mistakes(route, known)


def _auto_mistakes(route: RouteConfig, known: dict[str, IntegrationConfig]) -> Iterator[ConfigProblem]:
    if route.provider_type == "manual":
        yield ConfigProblem(f"{route.key}.provider_type", "manual", "external or codes with mode auto")
    elif not route.primary:
        yield ConfigProblem(
            f"{route.key}.primary", "missing", f"an integration with mode auto and {route.provider_type}"
        )
    elif route.provider_type == "codes" and route.primary in known and known[route.primary].provider != "codes":
        yield ConfigProblem(f"{route.key}.primary", route.primary, "an integration of provider codes")


def mapping_mistakes(
    mappings: Sequence[MappingConfig], integrations: Sequence[IntegrationConfig], unreadable: frozenset[str]
) -> Iterator[ConfigProblem]:
    known = {integration.id: integration for integration in integrations}
    seen: dict[tuple[str, str, str], str] = {}
    for mapping in mappings:
        name = (mapping.tenant_id, mapping.package_id, mapping.integration)
        if name in seen:
            found = f"{mapping.tenant_id}/{shown((), mapping.package_id)}/{mapping.integration}"
            expected = f"one mapping per tenant, package and integration ({seen[name]} is the same)"
            yield ConfigProblem(mapping.key, found, expected)
        seen.setdefault(name, mapping.key)
        key = f"{mapping.key}.integration"
        yield from _owner_mistakes(key, mapping.integration, mapping.tenant_id, known, unreadable)
        for wire_key in mapping.wire:
            # Any further key goes on the wire, so a slip of the pen would too.
            if close := difflib.get_close_matches(wire_key, MappingConfig.model_fields, n=1, cutoff=0.8):
                yield ConfigProblem(key_text((mapping.key, wire_key)), "an unknown key", f"{mapping.key}.{close[0]}")


def _owner_mistakes(
    key: str,
    integration_id: str | None,
    tenant_id: str,
    known: dict[str, IntegrationConfig],
    unreadable: frozenset[str],
) -> Iterator[ConfigProblem]:
    if integration_id is None or integration_id in unreadable:
        return
    if integration_id not in known:
        yield ConfigProblem(key, integration_id, "the id of an integration")
    elif known[integration_id].tenant_id != tenant_id:
        yield ConfigProblem(key, integration_id, f"an integration of tenant {tenant_id}")
