"""What each worker says about itself every few seconds, and what that makes of the lanes of all of them together.

A view for people, like the other views: nothing decides by it. Every function raises ``StoreUnavailable``.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from db import models as m
from db.engine import answering

#: A worker says something every ``BEAT_S`` seconds; silent for longer than ``STALE_S`` it is hung, killed or cut off.
BEAT_S = 2.0
STALE_S = 10.0
#: What a dead worker said last is kept for so long, so that somebody can notice.
_KEPT_S = 3600.0

#: Of a lane, the worst last.
STATES = ("closed", "half-open", "open")


class Lane(msgspec.Struct, kw_only=True):
    """One integration as one worker, or all together, see it. Rates are per second, times in seconds.

    ``state`` is the breaker's: closed lets calls through. ``share`` is the part of the integration's rate in use;
    the percentiles are of the last ``calls`` calls. ``last_error`` shows no secret.
    """

    state: str = "closed"
    share: float = 0.0
    rate: float = 0.0
    check_rate: float = 0.0
    concurrency: int = 0
    in_flight: int = 0
    waiting: int = 0
    calls: int = 0
    p50_s: float | None = None
    p95_s: float | None = None
    last_error: str = ""
    last_error_at: datetime | None = None
    reopens_in_s: float = 0.0
    workers: int = 1


class Doc(msgspec.Struct, kw_only=True):
    """What a worker tells. ``in_flight`` is events per agent; ``assigned`` is partitions per topic, without prefix.

    ``loop_delay_s`` is how late the event loop ran a timer, at worst since the last time; ``stuck`` names what makes
    no progress.
    """

    release: str
    started_at: datetime
    lanes: dict[str, Lane] = {}
    in_flight: dict[str, int] = {}
    assigned: dict[str, list[int]] = {}
    loop_delay_s: float = 0.0
    stuck: list[str] = []


class Worker(msgspec.Struct, kw_only=True):
    """One worker as it last spoke, ``silent_s`` seconds ago by the database's clock."""

    worker: str
    at: datetime
    silent_s: float
    doc: Doc

    @property
    def alive(self) -> bool:
        """It spoke lately; an orderly stop leaves no row behind."""
        return self.silent_s <= STALE_S


def note(engine: sa.Engine, worker: str, doc: Mapping[str, Any] | Doc) -> None:
    """Say what this worker is doing now, and forget workers that have been silent for an hour."""
    say = sa.text(
        "insert into worker_state (worker, at, doc) values (:worker, clock_timestamp(), cast(:doc as jsonb))"
        " on conflict (worker) do update set at = excluded.at, doc = excluded.doc"
    )
    old = sa.text("delete from worker_state where at < now() - make_interval(secs => :kept)")
    with answering(engine), engine.begin() as connection:
        connection.execute(say, {"worker": worker, "doc": msgspec.json.encode(doc).decode()})
        connection.execute(old, {"kept": _KEPT_S})


def forget(engine: sa.Engine, worker: str) -> None:
    """This worker stopped in order."""
    with answering(engine), engine.begin() as connection:
        connection.execute(m.worker_state.delete().where(m.worker_state.c.worker == worker))


def workers(engine: sa.Engine) -> list[Worker]:
    """Every worker of the last hour that did not stop in order, by name."""
    silent = sa.extract("epoch", sa.func.clock_timestamp() - m.worker_state.c.at).label("silent_s")
    query = sa.select(m.worker_state, silent).order_by(m.worker_state.c.worker)
    with answering(), engine.connect() as connection:
        rows = connection.execute(query).mappings().all()
    return [
        Worker(
            worker=row["worker"],
            at=row["at"],
            silent_s=max(float(row["silent_s"]), 0.0),
            doc=msgspec.convert(row["doc"], Doc, strict=False),
        )
        for row in rows
    ]


def lanes(engine: sa.Engine) -> dict[str, Lane]:
    """Each integration as the living workers see it together; empty while none lives."""
    return merged(worker.doc.lanes for worker in workers(engine) if worker.alive)


def merged(views: Iterable[Mapping[str, Lane]]) -> dict[str, Lane]:
    """One lane per integration out of the workers' own."""
    seen: dict[str, list[Lane]] = {}
    for view in views:
        for name, lane in view.items():
            seen.setdefault(name, []).append(lane)
    return {name: _together(found) for name, found in sorted(seen.items())}


def _together(lanes: Sequence[Lane]) -> Lane:
    """The worst state counts; what is a number of things is added up; percentiles are weighed by their calls."""
    calls = sum(lane.calls for lane in lanes)
    spoke = max(lanes, key=lambda lane: lane.last_error_at.timestamp() if lane.last_error_at else 0.0)
    slow = [lane.p95_s for lane in lanes if lane.p95_s is not None]
    usual = sum((lane.p50_s or 0.0) * lane.calls for lane in lanes)
    return Lane(
        state=max((lane.state for lane in lanes), key=lambda state: STATES.index(state) if state in STATES else 0),
        share=round(sum(lane.share for lane in lanes), 4),
        rate=round(sum(lane.rate for lane in lanes), 4),
        check_rate=round(sum(lane.check_rate for lane in lanes), 4),
        concurrency=sum(lane.concurrency for lane in lanes),
        in_flight=sum(lane.in_flight for lane in lanes),
        waiting=sum(lane.waiting for lane in lanes),
        calls=calls,
        p50_s=round(usual / calls, 4) if calls else None,
        p95_s=max(slow, default=None),
        last_error=spoke.last_error,
        last_error_at=spoke.last_error_at,
        reopens_in_s=max(lane.reopens_in_s for lane in lanes),
        workers=len(lanes),
    )
