"""What replaces a worker process that died, and what does not. Real processes, which only end in different ways."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from orderwatch.worker import supervisor
from tests.waiting import wait_until

AGAIN = 75


class Processes:
    """Stand-ins for workers: each start runs the next program of its port, and notes its process id."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, programs: dict[int, list[str]]) -> None:
        self.started: list[tuple[int, subprocess.Popen[bytes]]] = []
        self._programs = programs

        def start(environ: object, port: int) -> "subprocess.Popen[bytes]":
            program = self._programs[port].pop(0) if len(self._programs[port]) > 1 else self._programs[port][0]
            child = subprocess.Popen([sys.executable, "-c", program])
            self.started.append((port, child))
            return child

        monkeypatch.setattr(supervisor, "_start", start)
        monkeypatch.setattr(supervisor, "_REPLACE_S", 0.05)

    def of(self, port: int) -> list["subprocess.Popen[bytes]"]:
        return [child for number, child in self.started if number == port]


STAYS, ENDS = "import time; time.sleep(600)", "raise SystemExit(0)"


@pytest.fixture
def with_processes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Processes]:
    return lambda programs: Processes(monkeypatch, programs)


def stop_after(processes: Processes, done: Callable[[], bool]) -> threading.Thread:
    """SIGTERM to all when ``done``, as an operator's stop reaches them."""

    def run() -> None:
        try:
            wait_until(done, 20)
        finally:
            signal.raise_signal(signal.SIGTERM)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("end", ["raise SystemExit(1)", "import os; os.kill(os.getpid(), 9)", "import os; os.abort()"])
def test_one_of_several_that_dies_is_replaced(
    with_processes: Callable[..., Processes], capfd: pytest.CaptureFixture[str], end: str
) -> None:
    made = with_processes({1: [end, STAYS], 2: [STAYS]})
    stopping = stop_after(made, lambda: len(made.of(1)) == 2)
    assert supervisor.keep([1, 2], {}, AGAIN) == 0
    stopping.join()
    assert (len(made.of(1)), len(made.of(2))) == (2, 1)
    assert "replacing it in 0.05 s" in capfd.readouterr().err


def test_one_that_dies_again_and_again_is_replaced_ever_more_slowly(
    with_processes: Callable[..., Processes], capfd: pytest.CaptureFixture[str]
) -> None:
    made = with_processes({1: ["raise SystemExit(1)"], 2: [STAYS]})
    stopping = stop_after(made, lambda: len(made.of(1)) >= 4)
    assert supervisor.keep([1, 2], {}, AGAIN) == 0
    stopping.join()
    said = capfd.readouterr().err
    assert [f"replacing it in {pause} s" in said for pause in ("0.05", "0.1", "0.2")] == [True] * 3


def test_a_killed_process_is_replaced_and_the_stop_reaches_the_new_one(
    with_processes: Callable[..., Processes],
) -> None:
    made = with_processes({1: [STAYS], 2: [STAYS]})

    def killed() -> bool:
        if len(made.of(1)) == 1 and made.of(2):
            made.of(1)[0].kill()
        return len(made.of(1)) == 2

    stopping = stop_after(made, killed)
    assert supervisor.keep([1, 2], {}, AGAIN) == 0
    stopping.join()
    assert all(child.poll() is not None for _, child in made.started)


@pytest.mark.parametrize(("end", "status"), [("raise SystemExit(1)", 1), (ENDS, 0)])
def test_the_only_process_is_not_replaced(with_processes: Callable[..., Processes], end: str, status: int) -> None:
    made = with_processes({1: [end]})
    assert supervisor.keep([1], {}, AGAIN) == status
    assert len(made.started) == 1


def test_a_wrong_configuration_is_not_tried_again(with_processes: Callable[..., Processes]) -> None:
    made = with_processes({1: ["raise SystemExit(2)"], 2: ["raise SystemExit(2)"]})
    assert supervisor.keep([1, 2], {}, AGAIN) == 1
    assert len(made.started) == 2


def test_one_that_found_itself_stuck_is_started_again_also_alone(with_processes: Callable[..., Processes]) -> None:
    made = with_processes({1: [f"raise SystemExit({AGAIN})", ENDS]})
    assert supervisor.keep([1], {}, AGAIN) == 0
    assert len(made.started) == 2


def test_the_keeper_imports_nothing_of_ours() -> None:
    """Run as a script it takes little memory, so it knows no package of this project."""
    text = Path(supervisor.__file__).read_text("utf-8")
    ours = ("from orderwatch", "from streams", "from agents", "import structlog")
    assert not [line for line in text.splitlines() if line.startswith(ours)]
