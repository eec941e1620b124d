"""What a worker process can be made to suffer: put this directory on its PYTHONPATH and set one of these variables.

CHAOS_CLOCK_OFFSET_S: its wall clock is wrong by so much. CHAOS_SLOW_SEEK_S: Faust goes on so much later after it has
rewound the partitions, as on a busy machine. CHAOS_DISCARD_S: its flow is stopped for so many seconds in the moment in
which its first records came, as by a rebalance that begins then. CHAOS_SLOW_RECOVERY_S: the recovery of its tables asks
its first question so much later. CHAOS_KILL: SIGKILL at one of ``POINTS`` or ``COMMAND_POINTS``, the first time it
comes there.
CHAOS_HANG: the first order that is opened while the file of this name does not exist makes it and hangs for ever; with
CHAOS_HANG_AT=check the first answer to a check that is written down.
"""

import asyncio
import ctypes
import datetime
import gc
import importlib.machinery
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

#: Where a worker can be killed, in the order in which an order passes them.
POINTS = ("before open", "after open", "before referenced", "after referenced")

#: The same for a command that changes the status of an order.
COMMAND_POINTS = ("after receive", "after decided", "after command told")

_KILL = os.environ.get("CHAOS_KILL", "")
_DISCARD_S = float(os.environ.get("CHAOS_DISCARD_S", "0"))
_HANG, _HANG_AT = os.environ.get("CHAOS_HANG", ""), os.environ.get("CHAOS_HANG_AT", "open")
_RECOVERY_S = float(os.environ.get("CHAOS_SLOW_RECOVERY_S", "0"))
_LATE_S = float(os.environ.get("CHAOS_SLOW_SEEK_S", "0"))
_OFFSET_S = float(os.environ.get("CHAOS_CLOCK_OFFSET_S", "0"))


def _shift_the_clock() -> None:
    """For everything that Python code can ask for the time of day; monotonic clocks stay."""
    now_s, now_ns, now = time.time, time.time_ns, datetime.datetime.now
    shift = datetime.timedelta(seconds=_OFFSET_S)
    time.time = lambda: now_s() + _OFFSET_S
    time.time_ns = lambda: now_ns() + int(_OFFSET_S * 1_000_000_000)
    # A subclass would not do: other modules and msgspec know the type itself, and its methods are written in C.
    (methods,) = gc.get_referents(datetime.datetime.__dict__)
    methods["now"] = staticmethod(lambda tz=None: now(tz) + shift)
    methods["utcnow"] = staticmethod(lambda: (now(datetime.UTC) + shift).replace(tzinfo=None))
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime.datetime))


def _die_at(point: str) -> None:
    if point == _KILL:
        os.kill(os.getpid(), signal.SIGKILL)


def _rewind_late(consumer: Any) -> None:
    rewind = consumer.Consumer.perform_seek

    async def late(self: Any) -> None:
        await rewind(self)
        await asyncio.sleep(_LATE_S)

    consumer.Consumer.perform_seek = late


def _recover_late(recovery: Any) -> None:
    asked = recovery.Recovery._build_highwaters

    async def late(self: Any, *arguments: Any) -> None:
        await asyncio.sleep(_RECOVERY_S)
        await asked(self, *arguments)

    recovery.Recovery._build_highwaters = late


def _stop_at_the_first_records(consumer: Any) -> None:
    fetched = consumer.Consumer._wait_next_records
    stopped = []

    async def wait_next_records(self: Any, timeout: float) -> Any:
        records, active = await fetched(self, timeout)
        if records and not stopped and not self.app.in_recovery:
            stopped.append(True)
            self.stop_flow()
            self.loop.call_later(_DISCARD_S, self.resume_flow)
        return records, active

    consumer.Consumer._wait_next_records = wait_next_records


def _kill_at_the_ledger(ledger: Any) -> None:
    opened, applied, received = ledger.Ledger.open, ledger.Ledger.apply, ledger.Ledger.receive

    async def open_(self: Any, change: Any) -> Any:
        _die_at("before open")
        stored = await opened(self, change)
        _die_at("after open")
        return stored

    async def apply(self: Any, change: Any) -> Any:
        stored = await applied(self, change)
        if change.answer is not None:
            _die_at("after decided")
        return stored

    async def receive(self: Any, command: Any) -> Any:
        held = await received(self, command)
        _die_at("after receive")
        return held

    ledger.Ledger.open, ledger.Ledger.apply, ledger.Ledger.receive = open_, apply, receive


def _hang_at_the_ledger(ledger: Any) -> None:
    opened, applied = ledger.Ledger.open, ledger.Ledger.apply

    async def hang() -> None:
        if not os.path.exists(_HANG):
            with open(_HANG, "w", encoding="ascii"):
                pass
            await asyncio.Event().wait()

    async def open_(self: Any, change: Any) -> Any:
        await hang()
        return await opened(self, change)

    async def apply_(self: Any, change: Any) -> Any:
        if any(row.checks for row in change.attempts):
            await hang()
        return await applied(self, change)

    if _HANG_AT == "open":
        ledger.Ledger.open = open_
    else:
        ledger.Ledger.apply = apply_


def _kill_at_the_broker(kafka: Any) -> None:
    sent = kafka.Emitter.send

    async def send(self: Any, records: Any) -> None:
        mine = any(record.topic == "orders.referenced" for record in records)
        if mine:
            _die_at("before referenced")
        await sent(self, records)
        if mine:
            _die_at("after referenced")
        if any(record.topic == "orders.status-changed" for record in records):
            _die_at("after command told")

    kafka.Emitter.send = send


class _Hook:
    """Changes modules when they are imported: importing them here would be too early for ``python -m faust``."""

    def __init__(self, changes: dict[str, Callable[[Any], None]]) -> None:
        self._changes = changes

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in self._changes:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None and spec.loader is not None
        run = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            run(module)
            self._changes[name](module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if _OFFSET_S:
    _shift_the_clock()
if _DISCARD_S:
    sys.meta_path.insert(0, _Hook({"faust.transport.consumer": _stop_at_the_first_records}))
if _RECOVERY_S:
    sys.meta_path.insert(0, _Hook({"faust.tables.recovery": _recover_late}))
if _LATE_S:
    sys.meta_path.insert(0, _Hook({"faust.transport.consumer": _rewind_late}))
if _HANG:
    sys.meta_path.insert(0, _Hook({"db.ledger": _hang_at_the_ledger}))
if _KILL:
    assert _KILL in (*POINTS, *COMMAND_POINTS), _KILL
    sys.meta_path.insert(0, _Hook({"db.ledger": _kill_at_the_ledger, "streams.kafka.producer": _kill_at_the_broker}))
