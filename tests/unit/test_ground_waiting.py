"""The two helpers every suite leans on: waiting for an event, and hearing errors that nobody claimed."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import eventually, wait_until

ROOT = Path(__file__).parents[2]
LOGGING_TEST = """
import logging
from tests.conftest import expect_errors, logged_errors

def test_claimed(expect_errors):
    expect_errors("the broker away")
    logging.getLogger("x").error("the broker %s", "away")

def test_silent():
    logging.getLogger("x").warning("only a warning")

def test_unclaimed():
    logging.getLogger("x").error("nobody expected this")
"""


async def test_waits_until_the_answer_is_truthy_and_returns_it() -> None:
    answers = iter([0, None, 7])
    assert await eventually(lambda: next(answers)) == 7


async def test_awaits_an_async_check() -> None:
    async def check() -> str:
        return "there"

    assert await eventually(check) == "there"


async def test_an_assertion_that_fails_at_first_is_not_yet() -> None:
    found: list[int] = []

    def check() -> bool:
        found.append(1)
        assert len(found) == 3
        return True

    assert await eventually(check)


async def test_tells_the_last_answer_when_the_time_is_over() -> None:
    with pytest.raises(AssertionError, match=r"last answer was \[\]"):
        await eventually(list, timeout_s=0.05)


def test_other_errors_are_not_waited_for() -> None:
    with pytest.raises(ZeroDivisionError):
        wait_until(lambda: 1 / 0)


def test_a_test_that_logged_an_unclaimed_error_does_not_pass(tmp_path: Path) -> None:
    (tmp_path / "test_logging.py").write_text(LOGGING_TEST)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-c",
            str(ROOT / "pyproject.toml"),
            "--rootdir",
            str(tmp_path),
            str(tmp_path),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert "3 passed, 1 error" in done.stdout, done.stdout
    assert "test_logging.py::test_unclaimed" in done.stdout and "nobody expected this" in done.stdout
