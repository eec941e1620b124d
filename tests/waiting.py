"""Waiting for the event, not for time."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

_PAUSE_S = 0.02
T = TypeVar("T")


async def eventually(check: Callable[[], T | Awaitable[T]], timeout_s: float = 15.0) -> T:
    """The first truthy answer of ``check``, a plain or an async function; an AssertionError in it counts as "not yet".

    When the time is over, the last AssertionError is raised, or one that quotes the last answer.
    """
    give_up_at = time.monotonic() + timeout_s
    while True:
        try:
            answer = check()
            if inspect.isawaitable(answer):
                answer = await answer
            if answer:
                return answer  # type: ignore[return-value]
            failure = AssertionError(f"not within {timeout_s} s; the last answer was {answer!r}")
        except AssertionError as error:
            failure = error
        if time.monotonic() > give_up_at:
            raise failure
        await asyncio.sleep(_PAUSE_S)


def wait_until(check: Callable[[], T], timeout_s: float = 15.0) -> T:
    """``eventually`` for tests without an event loop."""
    return asyncio.run(eventually(check, timeout_s))
