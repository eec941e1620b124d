"""What can be wrong with an installation, looked at part by part; each finding carries its remedy.

A check that cannot be made because another part is away is not made: the part that is away has its own finding.
"""

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple

import sqlalchemy as sa

from agents.diagnosis.wording import count, duration
from db import durability, identity, preflight, schema
from db.control import api_tokens, kill_switch, worker_heartbeats
from db.control.api_tokens import Token
from db.reads import queries
from orderwatch.support.adapters import adapters
from orderwatch.support.config_check import loaded_with_checks
from orderwatch.support.session import database, with_parts, with_stored_catalog
from streams import ledger_log, topics
from streams.config.loader import Config, IntegrationConfig
from streams.errors import BrokerUnavailable, ConfigError, StoreUnavailable
from streams.kafka.offsets import Lags, Place, beyond_end, records_left
from streams.kafka.producer import apply_topics, brokers, group_lag
from streams.seal import Sealer

Verdict = Literal["ok", "warn", "fail"]

SKEW_WARN_S = 1.0
SKEW_FAIL_S = 10.0
LAG_WARN = 1000
OLD_S = 900.0
_SOON = timedelta(days=7)

#: What the workers' own group reads; the tiers belong to the delay line, where waiting is the purpose.
_READ = (topics.CREATED, topics.CHECK, topics.REFERENCED, topics.STATUS_CHANGED, topics.ATTENTION, topics.DEAD_LETTER)


class Finding(NamedTuple):
    """One line of the report. ``remedy`` is empty when nothing has to be done."""

    check: str
    verdict: Verdict
    finding: str
    remedy: str = ""


def examine(path: Path, environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Every finding, in the order in which things have to be repaired."""
    try:
        written = loaded_with_checks(path)
    except ConfigError as error:
        for line in str(error).splitlines():
            yield Finding("configuration", "fail", line, f"correct {path}, then `orderwatch config check`")
        return
    yield Finding("configuration", "ok", f"{path} is valid, {count(len(written.integrations), 'integration')}")
    yield _secrets(environ)
    try:
        config = with_parts(written, None)
    except ConfigError as error:
        yield Finding("bundled servers", "fail", "not running", str(error).partition(": ")[2] or str(error))
        return
    broker = list(_broker(config))
    yield from broker
    reached = broker[-1].verdict == "ok"
    if reached:
        yield from _topics(config)
    with database(config) as engine:
        try:
            yield from _database(config, engine, lag=reached)
        except StoreUnavailable as error:
            yield Finding("database", "fail", str(error), "start PostgreSQL, or correct database.url")


def _secrets(environ: Mapping[str, str]) -> Finding:
    """Credentials are in ``config.yaml`` by name only, so a missing one is a finding of the configuration already."""
    try:
        Sealer.from_environ(environ)
    except ConfigError as error:
        return Finding("secrets", "fail", str(error), "set ORDERWATCH_PIN_KEYS to the keys that PINs are sealed with")
    return Finding("secrets", "ok", "keys for PINs and credentials of every integration are there")


def _broker(config: Config) -> Iterator[Finding]:
    try:
        found = brokers(config.kafka)
    except (BrokerUnavailable, ConfigError) as error:
        yield Finding("broker", "fail", str(error), "start it, or correct kafka.bootstrap_servers and security")
        return
    for number, (host, port) in sorted(found.items()):
        try:
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            found_out = f"broker {number} advertises {host}:{port}, which this host cannot resolve ({error.strerror})"
            yield Finding("broker", "fail", found_out, "correct advertised.listeners of the broker, or this host's DNS")
            return
    yield Finding("broker", "ok", f"{count(len(found), 'broker')} at {config.kafka.bootstrap_servers}")


def _topics(config: Config) -> Iterator[Finding]:
    kafka, specs = config.kafka, topics.every(config)
    names = [spec.promise.name for spec in specs]
    tiers = [name for name in names if name.startswith(topics.RETRY)]
    try:
        lags = group_lag(kafka, f"{kafka.topic_prefix}orderwatch", names)
        missing = sorted(set(names) - {name for name, _ in lags})
        if missing:
            yield Finding("topics", "fail", f"missing: {', '.join(missing)}", "run `orderwatch topics apply`")
            return
        differences = apply_topics(kafka, specs)  # all are there, so this creates nothing
        for difference in differences:
            yield Finding("topics", "warn", str(difference), _remedy(difference))
        if not differences:
            yield Finding("topics", "ok", f"{len(specs)} topics, all as promised")
        read = {place: lag for place, lag in lags.items() if place[0] in _READ}
        waiting = group_lag(kafka, f"{kafka.topic_prefix}orderwatch-delay", tiers)
        yield from _beyond({**read, **waiting})
        yield _lag(read, records_left(kafka, read))
    except BrokerUnavailable as error:
        yield Finding("topics", "fail", str(error), "look at the broker's log")


def _remedy(difference: topics.Difference) -> str:
    """The option that repairs a difference, or who else has to."""
    if difference.what == "partitions":
        if int(difference.found) > int(difference.wanted):
            return f"set kafka.partitions to {difference.found}"
        return "run `orderwatch topics apply --grow`, see its --help"
    if difference.what == "replication":
        return "change it with the cluster's own tools, or correct kafka.replication_factor"
    return "run `orderwatch topics apply --fix`, see its --help"


def _beyond(lags: Lags) -> Iterator[Finding]:
    for (name, partition), (committed, end) in sorted(beyond_end(lags).items()):
        words = f"{name} [{partition}]: {committed} committed, but it ends at {end}: the topic was lost or made anew"
        remedy = "start `orderwatch worker`, which reads what is there; see Losing Kafka in docs/operating.md"
        yield Finding("consumer lag", "fail", words, remedy)


def _lag(lags: Lags, left: Mapping[Place, int]) -> Finding:
    """``left``: what there is to be read, as offsets without a record are no backlog."""
    unread = sorted(
        {name for (name, number), (committed, _) in lags.items() if committed is None and left[name, number]}
    )
    behind: Counter[str] = Counter()
    for (name, number), (committed, _) in lags.items():
        behind[name] += left[name, number] if committed is not None else 0
    total = sum(behind.values())
    if unread:
        return Finding(
            "consumer lag",
            "warn",
            f"never read: {', '.join(unread)}",
            "start `orderwatch worker`; restart it where partitions have no worker",
        )
    if beyond_end(lags):
        return Finding("consumer lag", "fail", "not known: more is committed than there is", "see above")
    most = max(behind, key=lambda name: behind[name], default="")
    words = f"{count(total, 'record')} behind" + (f", most on {most} ({behind[most]})" if total else "")
    if total > LAG_WARN:
        return Finding("consumer lag", "warn", words, "start more workers, up to the number of partitions, or wait")
    return Finding("consumer lag", "ok", words)


def _database(config: Config, engine: sa.Engine, *, lag: bool) -> Iterator[Finding]:
    now, here = queries.database_now(engine), datetime.now(UTC)
    problems = preflight.server_problems(engine) + preflight.rights_problems(engine)
    for problem in problems:
        yield Finding("database", "fail", problem, "docs/operating.md")
    yield from _durability(durability.read(engine))
    if not problems:
        yield Finding("database", "ok", "PostgreSQL answers")
    yield _skew((here - now).total_seconds())
    at, head = schema.current(engine), schema.head()
    if not schema.is_current(engine):
        found = f"{at or 'empty'}, this release expects {head}"
        yield Finding("migrations", "fail", found, "run `orderwatch db upgrade`")
        return
    words = "the schema of this release" if at == head else f"newer than this release ({head}), which works on it"
    yield Finding("migrations", "ok", f"{at}, {words}")
    yield _identity(config, engine, lag=lag)
    running = worker_heartbeats.workers(engine)
    yield from _workers(running)
    yield from _unowned(config, running)
    yield _dashboard(config, api_tokens.listing(engine), now)
    yield from _ledger(config, queries.health(engine, slack_s=config.checks.sweep_slack))
    for name, off in sorted(kill_switch.switched_off(engine).items()):
        yield Finding(
            f"integration {name}",
            "warn",
            f"switched off by {off['by']}: {off['reason']}",
            f"`orderwatch integration on {name} --reason ...`",
        )
    try:
        followed = with_stored_catalog(config, engine)
    except ConfigError as error:
        yield Finding("stored configuration", "fail", str(error).splitlines()[0], "correct it with `config import`")
        followed = config
    yield from asyncio.run(_providers(followed, engine))


def _identity(config: Config, engine: sa.Engine, *, lag: bool) -> Finding:
    """Is the ledger as new as the log, and the one that the log belongs to?"""
    recover = "stop nothing; `orderwatch db recover --dry-run`, then without it: docs/operating.md"
    state = identity.read(engine)
    if state.behind_since is not None:
        return Finding("ledger", "fail", f"older than the log, nothing is sent: {state.behind_why}", recover)
    try:
        found = ledger_log.marks(config.kafka) if lag else {}
        state = identity.read(engine)  # after the marks: workers let the epoch grow first, and write it down then
        ledger_log.refuse_other(found, state.identity)
    except BrokerUnavailable as error:
        return Finding("ledger", "warn", f"not compared with the log: {error}", "run `orderwatch topics apply`")
    except ConfigError as error:
        return Finding("ledger", "fail", str(error), "correct database.url")
    if why := ledger_log.behind(found, state.identity, state.epoch):
        return Finding("ledger", "fail", f"older than the log: {why}", recover)
    return Finding("ledger", "ok", f"{state.identity} at epoch {state.epoch}, as new as the log")


def _durability(found: durability.Durability) -> Iterator[Finding]:
    for name in found.off:
        yield Finding(
            "durability",
            "warn",
            f"{name} is off: a crash of the server may lose or damage the ledger",
            f"set {name} = on in postgresql.conf",
        )
    if found.standbys:
        yield Finding(
            "durability",
            "warn",
            f"asynchronous standbys: {', '.join(found.standbys)}; a failover to one of them loses the last commits",
            "set synchronous_standby_names, or recover after a failover",
        )


def _workers(found: Sequence[worker_heartbeats.Worker]) -> Iterator[Finding]:
    alive = [worker for worker in found if worker.alive]
    for worker in found:
        if not worker.alive:
            yield Finding(
                "workers",
                "warn",
                f"{worker.worker} has been silent for {duration(worker.silent_s)}",
                "it was killed or is cut off: see its log; start another one if work waits",
            )
        for what in worker.doc.stuck if worker.alive else ():
            yield Finding("workers", "fail", f"{worker.worker}: {what}", "it restarts by itself; its log has the tasks")
    if alive:
        yield Finding("workers", "ok", f"{count(len(alive), 'worker')} at work")
    else:
        yield Finding("workers", "fail", "none is running", "start `orderwatch worker`")
    for name, lane in worker_heartbeats.merged(worker.doc.lanes for worker in alive).items():
        if lane.state != "closed":
            again = f", tried again in {duration(lane.reopens_in_s)}" if lane.reopens_in_s else ""
            yield Finding(
                f"lane {name}",
                "warn",
                f"sends nothing{again}: {lane.last_error or 'no usable answers'}",
                "look at the provider; its orders wait, the others go on",
            )


def _unowned(config: Config, found: Sequence[worker_heartbeats.Worker]) -> Iterator[Finding]:
    """Partitions of orders.created that no live worker reads; as many as are configured, at least."""
    read = {number for worker in found if worker.alive for number in worker.doc.assigned.get(topics.CREATED, ())}
    unread = sorted(set(range(config.kafka.partitions)) - read)
    if unread and any(worker.alive for worker in found):
        yield Finding(
            "workers",
            "fail",
            f"no worker reads orders.created {', '.join(map(str, unread))}",
            "restart the worker that has no partition; after a rebalance wait some seconds",
        )


def _dashboard(config: Config, made: Sequence[Token], now: datetime) -> Finding:
    """What keeps people out: log-ins that end with a restart, tokens that are used and about to be over."""
    ends = {token: token.expires_at or datetime.max.replace(tzinfo=UTC) for token in made if token.revoked_at is None}
    good = [token for token, at in ends.items() if at > now]
    ending = sorted(token.name for token in good if token.last_used_at is not None and ends[token] - _SOON < now)
    if ending:
        found = f"tokens that are used end within {_SOON.days} days: {', '.join(ending)}"
        return Finding("dashboard", "warn", found, "`orderwatch token create`, and hand them out")
    if config.web.session_key is None and config.web.host not in ("127.0.0.1", "::1", "localhost"):
        return Finding("dashboard", "warn", "log-ins end whenever it restarts", "set web.session_key")
    return Finding("dashboard", "ok", f"{count(len(good), 'token')} in force")


def _skew(ahead_s: float) -> Finding:
    words = f"this host is {abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} the database"
    verdict: Verdict = "ok"
    if abs(ahead_s) > SKEW_WARN_S:
        verdict = "fail" if abs(ahead_s) > SKEW_FAIL_S else "warn"
    return Finding("clock skew", verdict, words, "" if verdict == "ok" else "let NTP set the clocks of both hosts")


def _ledger(config: Config, seen: queries.Health) -> Iterator[Finding]:
    yield _aged(
        "overdue checks",
        seen.overdue,
        seen.overdue_since,
        seen.now,
        "start `orderwatch worker`; the sweeper repairs what was lost",
    )
    yield _sweep(config, seen)
    yield _aged(
        "projection",
        seen.behind,
        seen.behind_since,
        seen.now,
        "look at the lag of orders.status-changed; the sweeper says lost events again",
        "order",
    )
    if seen.unknown:
        yield Finding(
            "unknown outcomes",
            "warn",
            f"{count(seen.unknown, 'attempt')} may or may not have been bought",
            "they are looked up; `orderwatch orders list --external-status unknown`",
        )
    if seen.attention and seen.attention_since is not None:
        oldest = duration((seen.now - seen.attention_since).total_seconds())
        yield Finding(
            "attention",
            "warn",
            f"{seen.attention} not acknowledged, the oldest {oldest} old",
            "`orderwatch attention list`",
        )
    else:
        yield Finding("attention", "ok", "nothing waits for a person")
    if seen.dead_letters:
        yield Finding("dead letters", "warn", f"{seen.dead_letters} not replayed", "`orderwatch dlq list`")
    else:
        yield Finding("dead letters", "ok", "none")


def _aged(check: str, number: int, since: datetime | None, now: datetime, remedy: str, noun: str = "check") -> Finding:
    if not number or since is None:
        return Finding(check, "ok", "none")
    age_s = (now - since).total_seconds()
    words = f"{count(number, noun)} late, the oldest by {duration(age_s)}"
    return Finding(check, "fail" if age_s > OLD_S else "warn", words, remedy)


def _sweep(config: Config, seen: queries.Health) -> Finding:
    if seen.swept_at is None:
        return Finding(
            "sweeper", "fail" if seen.open_orders else "warn", "no pass was ever made", "start `orderwatch worker`"
        )
    age_s = (seen.now - seen.swept_at).total_seconds()
    words = f"last pass {duration(age_s)} ago"
    if age_s > 2 * config.checks.sweep_every + config.checks.sweep_slack:
        return Finding("sweeper", "fail", words, "start `orderwatch worker`; one of them sweeps")
    if failed := (seen.swept or {}).get("failed"):
        name, error = next(iter(failed.items()))
        return Finding("sweeper", "fail", f"{words}; {name} fails: {error}", "docs/runbook.md#orderwatchsweepfailing")
    return Finding("sweeper", "ok", words)


async def _providers(config: Config, engine: sa.Engine) -> list[Finding]:
    enabled = tuple(item for item in config.integrations if item.enabled and item.base_url)
    async with adapters(enabled, engine) as made:
        answers = await asyncio.gather(*(made[item.id].balance() for item in enabled))
    return [
        _balance(item, answer.money and answer.money.amount, answer.money and answer.money.currency, answer.reason)
        for item, answer in zip(enabled, answers, strict=True)
    ]


def _balance(item: IntegrationConfig, amount: object, currency: object, reason: str) -> Finding:
    check = f"provider {item.id}"
    if amount is None:
        return Finding(
            check,
            "fail",
            f"no balance: {reason or 'the provider told none'}",
            "check base_url, credentials, and whether the provider lets this address in",
        )
    if item.low_balance is not None and amount < item.low_balance:  # type: ignore[operator]
        return Finding(check, "warn", f"balance {amount} {currency}, below {item.low_balance}", "top up the account")
    return Finding(check, "ok", f"answers, balance {amount} {currency}")
