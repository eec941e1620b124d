"""What config.yaml may say: one frozen model per block, checked field by field.

Durations are seconds, rates are per second; ``streams.config.types`` says how they are written. Rules that span several
keys are in ``streams.config.rules``.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr

from streams.config.types import (
    Currency,
    Flag,
    Id,
    MoneyAmount,
    Name,
    Number,
    PackageId,
    Pattern,
    PositiveSeconds,
    Prefix,
    Rate,
    Seconds,
    Secret,
    Text,
    Whole,
    tier_name,
)

#: Of one backoff; each step is a topic.
MOST_STEPS = 24


class Block(BaseModel):
    """A block of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def secrets(value: Any) -> Iterator[str]:
    """Every secret in a block or in what it holds, for whoever must not print it."""
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from secrets(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from secrets(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from secrets(item)


class SecurityConfig(Block):
    """How every Kafka client proves who it is."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="how clients talk to the broker"
    )
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        default=None, description="how they log in; needed with SASL"
    )
    username: Name | None = Field(default=None, description="needed with SASL")
    password: Secret | None = Field(default=None, description="needed with SASL")
    ca: Name | None = Field(default=None, description="PEM file of the authority behind the broker's certificate")
    cert: Name | None = Field(default=None, description="PEM file of the client's own certificate")
    key: Name | None = Field(default=None, description="PEM file of its key")


class KafkaConfig(Block):
    bootstrap_servers: Name = Field(description="`host:port`, comma separated, or `embedded` for the bundled broker")
    topic_prefix: Prefix = Field(default="", description="put before every topic and consumer group name")
    partitions: Whole = Field(
        default=4, ge=1, description="of every topic; also the number of workers that can share the work"
    )
    replication_factor: Whole = Field(default=1, ge=1, description="copies of a topic; 3 on a cluster")
    security: SecurityConfig = Field(default_factory=SecurityConfig, description="passed to every client")
    session_timeout: PositiveSeconds = Field(default=10.0, description="a silent worker loses its work after this")
    rebalance_timeout: PositiveSeconds = Field(default=30.0, description="how long a rebalance waits for its members")


class DatabaseConfig(Block):
    url: Secret = Field(description="`postgresql://user:password@host/name`, or `embedded` for the bundled PostgreSQL")
    pool_size: Whole = Field(default=6, ge=1, description="connections per worker; at most 4 more for a moment")
    pooler: Literal["session", "transaction"] = Field(
        default="session", description="`transaction` behind PgBouncer in transaction mode: limits per transaction"
    )


class WebConfig(Block):
    host: Name = Field(default="127.0.0.1", description="address the dashboard and the API listen on")
    port: Whole = Field(default=8080, ge=0, le=65535, description="0 takes any free port")
    https: Flag = Field(default=False, description="people reach it by https, through a proxy: cookies need it too")
    session_key: Secret | None = Field(
        default=None, description="seals log-ins, 32 characters or more; none: log-ins end with the process"
    )
    session: PositiveSeconds = Field(default=43200.0, description="how long a log-in lasts")
    rate: Rate = Field(default=50.0, description="requests per token, or per address without one")
    pool_size: Whole = Field(default=6, ge=1, description="connections of the dashboard to the database")
    query_timeout: PositiveSeconds = Field(default=5.0, description="a longer question to the database is given up")


class BackoffConfig(Block):
    """Delay before check n + 1 is ``base * factor ** (n - 1)``, at most ``max``."""

    base: PositiveSeconds = Field(default=30.0, description="delay after the first check")
    factor: Number = Field(default=2.0, ge=1, description="each delay is this many times the one before")
    max: PositiveSeconds = Field(default=600.0, description="no delay is longer")

    @cached_property
    def steps(self) -> tuple[float, ...]:
        """Every distinct delay, ascending, whole milliseconds; cut after ``MOST_STEPS`` + 1, which the rules refuse."""
        steps: list[float] = []
        delay = self.base
        while len(steps) <= MOST_STEPS:
            step = round(min(delay, self.max), 3)
            if steps and step == steps[-1]:
                break
            steps.append(step)
            delay *= self.factor
        return tuple(steps)


class AfterFinalConfig(Block):
    every: PositiveSeconds = Field(default=3600.0, description="how often a finished order is still asked about")
    until: Seconds = Field(default=21600.0, description="for how long after its end; `0s` switches it off")


class ChecksConfig(Block):
    first_after: PositiveSeconds = Field(default=60.0, description="from the placement to its first check")
    backoff: BackoffConfig = Field(default_factory=BackoffConfig, description="from check to check")
    requeue_after: PositiveSeconds = Field(
        default=5.0, description="an order whose integration is busy or down is tried again after this"
    )
    deadline: PositiveSeconds = Field(default=86400.0, description="from acceptance; then checks stop")
    on_deadline: Literal["attention", "fail"] = Field(
        default="attention", description="an order past its deadline waits for a person, or fails"
    )
    balance_every: Seconds = Field(
        default=600.0, description="how often each account is asked for its balance; `0s` switches it off"
    )
    sweep_every: PositiveSeconds = Field(default=300.0, description="how often overdue checks are looked for")
    sweep_batch: Whole = Field(default=100, ge=1, description="rows read at a time by the sweep")
    sweep_slack: Seconds = Field(default=60.0, description="a check is overdue when it is late by more than this")
    long_pending_after: tuple[PositiveSeconds, ...] = Field(
        default=(300.0, 900.0, 3600.0), description="ages at which an open order raises attention, once each"
    )
    after_final: AfterFinalConfig = Field(
        default_factory=AfterFinalConfig, description="watch for orders that a provider takes back"
    )


class ChecksOverride(Block):
    first_after: PositiveSeconds | None = Field(default=None, description="instead of checks.first_after")
    backoff: BackoffConfig | None = Field(default=None, description="instead of checks.backoff, as a whole")


class DispatchConfig(Block):
    lease: PositiveSeconds | None = Field(
        default=None,
        description="how long a sending belongs to its worker; default, and least: timeout + connect_timeout"
        " + lease_margin",
    )
    lease_margin: PositiveSeconds = Field(default=10.0, description="how much a lease outlives the call it covers")
    max_in_flight: Whole = Field(default=500, ge=1, description="events in flight per agent and worker")
    max_dead_letter_ratio: Number = Field(
        default=0.5,
        gt=0,
        le=1,
        description="share of the events in a window that may become dead letters; above it the worker stops",
    )
    cost_factor: Number = Field(
        default=3.0, gt=1, description="a cost this many times above or below the expected one raises attention"
    )
    poison_retries: Whole = Field(
        default=3, ge=0, description="further tries of an event whose handler failed, before it is dead-lettered"
    )


class WorkerConfig(Block):
    drain: Seconds = Field(default=25.0, description="time for work in flight to finish when the worker is stopped")
    config_poll: PositiveSeconds = Field(default=2.0, description="how often the stored catalogue is compared")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least level logged; `debug` has a line per placement"
    )
    log_format: Literal["json", "console"] = Field(default="json", description="for machines or for people")
    stall_after: Seconds = Field(
        default=120.0,
        description="a partition with a backlog and no progress for so long makes the worker unhealthy,"
        " and soon after that it restarts itself; never less than 4.5 times the longest `connect_timeout`"
        " and `timeout` together of any integration; `0s` switches it off",
    )


class AlertsConfig(Block):
    """Where attention goes besides the table and the topic."""

    webhook_url: Name | None = Field(default=None, description="gets each attention once, signed (Standard Webhooks)")
    webhook_secret: Secret | None = Field(default=None, description="`whsec_...`, shared with the receiver")
    command: tuple[Text, ...] = Field(
        default=(), description="program and arguments, run without a shell; gets each attention as JSON on its input"
    )
    codes: tuple[Name, ...] = Field(default=(), description="only these codes of attention; none: all")
    every: PositiveSeconds = Field(default=2.0, description="how often new attention is looked for")
    timeout: PositiveSeconds = Field(default=10.0, description="of one delivery")
    give_up_after: PositiveSeconds = Field(default=86400.0, description="then a delivery that fails is tried no more")

    @property
    def targets(self) -> tuple[str, ...]:
        """``webhook`` and ``command``, as far as they are configured."""
        wanted = (("webhook", self.webhook_url), ("command", self.command))
        return tuple(name for name, given in wanted if given)


class TelemetryConfig(Block):
    otlp_endpoint: Name | None = Field(
        default=None, description="traces go to this OTLP/HTTP collector, such as `http://127.0.0.1:4318`; none: off"
    )
    otlp_headers: dict[str, Secret] = Field(default_factory=dict, description="sent with them, such as a token")
    sample: Number = Field(default=1.0, ge=0, le=1, description="share of new traces that are recorded")


class TableConfig(Block):
    keep_finished: PositiveSeconds = Field(default=3600.0, description="then a finished order leaves the table")
    window: PositiveSeconds = Field(default=60.0, description="length of one counting window")
    keep_windows: PositiveSeconds = Field(default=3600.0, description="windows older than this are dropped")


class LimitsConfig(Block):
    rate: Rate = Field(default=10.0, description="placements, shared by all workers")
    check_rate: Rate = Field(
        default_factory=lambda data: float(data.get("rate", 10.0)), description="status questions; default: as rate"
    )
    concurrency: Whole = Field(default=50, ge=1, description="calls at the same time, per worker")
    connect_timeout: PositiveSeconds = Field(default=5.0, description="to open a connection")
    timeout: PositiveSeconds = Field(default=20.0, description="of a whole call, answer included")
    queue: Whole = Field(default=0, ge=0, description="calls that may wait; 0: derived from rate")


class BreakerConfig(Block):
    fail_max: Whole = Field(default=5, ge=1, description="failed calls in a row that stop the integration")
    reset_after: PositiveSeconds = Field(default=30.0, description="then it is tried again after this")
    slow_start: Seconds = Field(default=30.0, description="time to come back to the full rate")
    refusals_max: Whole = Field(default=20, ge=1, description="refusals in a window that also stop it")
    refusals_window: PositiveSeconds = Field(default=60.0, description="length of that window")


class CatalogueBlock(Block):
    """A block that also lives in the database; see ``db.control.stored_config``."""

    _raw: dict[str, Any] = PrivateAttr(default_factory=dict)
    _key: str = PrivateAttr(default="")

    @property
    def raw(self) -> dict[str, Any]:
        """The block as written, ``${NAME}`` unexpanded; empty for a block made by code."""
        return self._raw

    @property
    def key(self) -> str:
        """Where it stands, for error lines: ``integrations[0]``."""
        return self._key


class IntegrationConfig(CatalogueBlock):
    id: Id = Field(description="unique name of the account")
    tenant_id: Id = Field(description="whose account it is")
    provider: Name = Field(description="znet, barakat, apstore, codes, or the name of a plug-in")
    base_url: Name | None = Field(
        default=None, description="https://... of the provider; http only on this machine or with options.allow_http"
    )
    currency: Currency | None = Field(default=None, description="of the account")
    enabled: Flag = Field(default=True, description="false: its orders wait with attention integration_disabled")
    credentials: dict[str, Secret] = Field(default_factory=dict, description="as the provider needs; `${NAME}` only")
    limits: LimitsConfig = Field(default_factory=LimitsConfig, description="what the provider can bear")
    breaker: BreakerConfig = Field(default_factory=BreakerConfig, description="when to leave the provider alone")
    options: dict[str, Any] = Field(default_factory=dict, description="of the provider's adapter")
    profile: dict[str, Any] = Field(default_factory=dict, description="overrides of the adapter's capability profile")
    low_balance: MoneyAmount | None = Field(default=None, description="a balance below this raises attention")
    checks: ChecksOverride = Field(default_factory=ChecksOverride, description="a schedule of its own")


class RouteConfig(CatalogueBlock):
    tenant_id: Id = Field(description="whose orders")
    package_id: PackageId = Field(description="of the shop")
    mode: Literal["auto", "manual"] = Field(description="manual: orders wait for a person")
    provider_type: Literal["external", "codes", "manual"] = Field(default="external", description="who delivers")
    primary: Id | None = Field(default=None, description="integration tried first")
    fallback: Id | None = Field(default=None, description="integration tried once nothing was bought there")


class MappingConfig(CatalogueBlock):
    """Further keys are text for the wire: what the provider needs to know the package by."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Text] = Field(init=False)

    tenant_id: Id = Field(description="whose package")
    package_id: PackageId = Field(description="of the shop")
    integration: Id = Field(description="where it is bought")
    provider_package_id: Name = Field(description="the provider's id of it")
    delivers_pin: Flag = Field(default=False, description="the provider answers with a PIN for the customer")
    cost: MoneyAmount | None = Field(default=None, description="expected cost in the integration's currency")
    max_cost: MoneyAmount | None = Field(
        default=None, description="nothing is sent while the catalogue or the last order says that one unit costs more"
    )
    pin_pattern: Pattern | None = Field(
        default=None, description="regular expression of a whole PIN; another one is held for a person"
    )
    params: dict[str, Text] = Field(
        default_factory=dict, description="wire parameter: template, such as `{user_identifier}` or `{params.server}`"
    )

    @property
    def wire(self) -> dict[str, str]:
        """The further keys, such as ``oyun`` and ``kupur``."""
        return dict(self.__pydantic_extra__ or {})


class CatalogueDocs(NamedTuple):
    """Blocks as plain data, ``${NAME}`` unexpanded."""

    integrations: list[dict[str, Any]]
    routes: list[dict[str, Any]]
    mappings: list[dict[str, Any]]


class Config(Block):
    """Everything config.yaml says. Look-ups by key are dictionary look-ups."""

    kafka: KafkaConfig = Field(description="the log")
    database: DatabaseConfig = Field(description="the memory")
    web: WebConfig = Field(default_factory=WebConfig, description="dashboard and API")
    checks: ChecksConfig = Field(default_factory=ChecksConfig, description="when providers are asked about orders")
    dispatch: DispatchConfig = Field(default_factory=DispatchConfig, description="how orders are placed")
    worker: WorkerConfig = Field(default_factory=WorkerConfig, description="the process")
    alerts: AlertsConfig = Field(default_factory=AlertsConfig, description="who is told of attention, and how")
    telemetry: TelemetryConfig = Field(default_factory=TelemetryConfig, description="traces")
    table: TableConfig = Field(default_factory=TableConfig, description="the Faust table of order statuses")
    integrations: tuple[IntegrationConfig, ...] = Field(default=(), description="accounts at providers")
    routes: tuple[RouteConfig, ...] = Field(default=(), description="one per tenant and package: who delivers it")
    mappings: tuple[MappingConfig, ...] = Field(
        default=(), description="what a package is called there; one per tenant, package and integration"
    )

    # Not private attributes: pydantic looks those up in Python, and these are asked for every order.
    @cached_property
    def by_integration(self) -> dict[str, IntegrationConfig]:
        """Integrations by id."""
        return {item.id: item for item in self.integrations}

    @cached_property
    def by_package(self) -> dict[tuple[str, str], RouteConfig]:
        """Routes by (tenant, package)."""
        return {(item.tenant_id, item.package_id): item for item in self.routes}

    @cached_property
    def by_package_at(self) -> dict[tuple[str, str, str], MappingConfig]:
        """Mappings by (tenant, package, integration)."""
        return {(item.tenant_id, item.package_id, item.integration): item for item in self.mappings}

    def integration(self, integration_id: str) -> IntegrationConfig | None:
        return self.by_integration.get(integration_id)

    def route(self, tenant_id: str, package_id: str) -> RouteConfig | None:
        return self.by_package.get((tenant_id, package_id))

    def mapping(self, tenant_id: str, package_id: str, integration_id: str) -> MappingConfig | None:
        return self.by_package_at.get((tenant_id, package_id, integration_id))

    def first_after(self, integration: IntegrationConfig) -> float:
        """Seconds from placement to first check at this integration."""
        return integration.checks.first_after or self.checks.first_after

    def backoff(self, integration: IntegrationConfig) -> BackoffConfig:
        return integration.checks.backoff or self.checks.backoff

    def lease_s(self, integration: IntegrationConfig) -> float:
        """Seconds a sending belongs to its worker: always longer than the call it covers."""
        shortest = integration.limits.timeout + integration.limits.connect_timeout + self.dispatch.lease_margin
        return round(self.dispatch.lease or shortest, 3)

    def tiers(self) -> tuple[float, ...]:
        """Every distinct delay of the configured schedules in seconds, ascending; each is one retry topic."""
        delays = [self.checks.requeue_after, self.checks.first_after, *self.checks.backoff.steps]
        if self.checks.after_final.until:
            delays.append(self.checks.after_final.every)
        for integration in self.integrations:
            delays += [self.first_after(integration), *self.backoff(integration).steps]
        if self.integrations:
            delays.append(min(map(self.lease_s, self.integrations)))
        return tuple(sorted({round(delay, 3) for delay in delays}))

    @staticmethod
    def tier_name(seconds: float) -> str:
        return tier_name(seconds)

    @property
    def docs(self) -> CatalogueDocs:
        """The catalogue as written, for ``db.control.stored_config``."""
        return CatalogueDocs(
            [item.raw for item in self.integrations],
            [item.raw for item in self.routes],
            [item.raw for item in self.mappings],
        )

    def fingerprint(self) -> str:
        """sha256 of the catalogue as written; the order of its entries does not matter."""
        lists = [sorted(json.dumps(doc, sort_keys=True) for doc in docs) for docs in self.docs]
        return hashlib.sha256(json.dumps(lists).encode()).hexdigest()
