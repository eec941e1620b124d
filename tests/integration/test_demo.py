"""The demo as a newcomer runs it: from any directory, stopped at any moment, two at a time."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
PYTHON = Path(sys.executable)

#: Settings of a machine on which another Orderwatch is configured; none of them may reach the demo.
ELSEWHERE = {
    "ORDERWATCH_CONFIG": "/nowhere/config.yaml",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "DATABASE_URL": "embedded",
    "ORDERWATCH_PIN_KEYS": "none",
    "ZNET_KOD": "stranger",
    "BARAKAT_TOKEN": "stranger",
    "SIMULATOR_URL": "http://x",
}

#: The purchase of D-10005 is made twice by the provider itself. The rule names its player: without one it could be
#: used up by D-10004, which this provider refuses. The time limit passes at once.
SOLD_TWICE = "story.LOST_ANSWERS += (('znet-main', {'kind': 'execute_twice', 'player': '5141324458'}),)"
NO_TIME = "play.TIME_LIMIT_S = 0"


class Running:
    """A demo in a process of its own; ``said`` is what it wrote so far on stderr."""

    def __init__(
        self, place: Path, *arguments: str, change: str = "pass", code: Path = ROOT, python: Path = PYTHON
    ) -> None:
        script = (
            "import sys; from orderwatch.demo import play, story; from orderwatch.cli.main import main;"
            f" {change}; main(sys.argv[1:])"
        )
        place.mkdir(parents=True, exist_ok=True)
        self.log, self.out = place / "stderr", place / "stdout"
        with self.log.open("wb") as log, self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [str(python), "-c", script, "demo", "--json", *arguments],
                stdout=out,
                stderr=log,
                cwd=place,
                env={**ELSEWHERE, "PATH": os.environ["PATH"], "PYTHONPATH": str(code), "TMPDIR": str(place)},
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.log.read_text("utf-8")

    def wait_for(self, words: str, timeout_s: float = 60) -> None:
        """Until it said something that matches."""

        def heard() -> bool:
            assert self.process.poll() is None or re.search(words, self.said), f"it ended first: {self.said}"
            return bool(re.search(words, self.said))

        wait_until(heard, timeout_s)

    def end(self, timeout_s: float = 110) -> int:
        return self.process.wait(timeout_s)

    def document(self) -> dict[str, Any]:
        return json.loads(self.out.read_text("utf-8"))

    def family(self) -> dict[int, str]:
        """Every process below it: process id -> command line."""
        below = psutil.process_iter(["pid", "cmdline"])
        pids = {child.pid for child in psutil.Process(self.process.pid).children(recursive=True)}
        return {one.pid: " ".join(one.info["cmdline"] or ()) for one in below if one.pid in pids}


def alive(pids: dict[int, str]) -> dict[int, str]:
    """Those of them that still run; a zombie does not."""
    left = {one.pid for one in psutil.process_iter(["status"]) if one.info["status"] != psutil.STATUS_ZOMBIE}
    return {pid: args for pid, args in pids.items() if pid in left}


@pytest.fixture
def place() -> Iterator[Path]:
    """Not pytest's own directory: PostgreSQL under root is another user, who may not go there."""
    with tempfile.TemporaryDirectory(prefix="orderwatch-", ignore_cleanup_errors=True) as made:
        yield Path(made)


def left_behind(place: Path) -> list[Path]:
    return sorted(place.rglob("orderwatch-demo-*"))


@pytest.fixture(scope="module")
def ended() -> Iterator[tuple[Running, dict[int, str]]]:
    """A whole run that agreed, and the processes that it had."""
    with tempfile.TemporaryDirectory(prefix="orderwatch-", ignore_cleanup_errors=True) as made:
        demo = Running(Path(made), "--orders", "40")
        demo.wait_for("the worker is starting")
        family = demo.family()
        assert demo.end() == 0, demo.said
        yield demo, family


def test_the_demo_ends_with_four_equal_books_wherever_it_is_started(ended: tuple[Running, dict[int, str]]) -> None:
    said = ended[0].document()
    assert said["agree"] and said["differences"] == []
    books = said["books"]
    assert books["shop"]["orders"] == books["postgresql"]["orders"] == 40
    completed = books["postgresql"]["completed"]
    assert completed == books["providers"]["orders"] == books["status_topic"]["completed"] >= 30
    assert books["providers"]["bought_twice"] == 0


def test_the_demo_tells_its_story(ended: tuple[Running, dict[int, str]]) -> None:
    said = ended[0].document()
    counts = said["counts"]
    assert counts["repeats_dropped"] == 3 and counts["dead_letters"] == 1
    assert counts["found"] >= 1 and counts["absent"] >= 1 and counts["fallbacks"] >= 1
    assert {"manual_route", "dead_letter", "pin_missing"} <= set(counts["attention_codes"])
    assert [row["order_id"] for row in said["waiting_for_a_person"]] == ["D-10006"]
    assert any("may have been bought" in line for line in said["lost_answer"]["lines"])


def test_an_ended_demo_leaves_nothing(ended: tuple[Running, dict[int, str]]) -> None:
    demo, family = ended
    assert len(family) >= 8, family  # keepers and parts: broker, PostgreSQL, simulator, worker
    assert not alive(family) and not left_behind(demo.log.parent)


def test_the_demo_shows_no_pin_player_or_password(ended: tuple[Running, dict[int, str]]) -> None:
    shown = ended[0].said + ended[0].out.read_text("utf-8")
    assert not re.search(r"[A-Z2-9]{4}(-[A-Z2-9]{4}){3}|\b[0-9A-F]{16}\b", shown)  # codes of the shops, of the stock
    assert not re.search(r"\b5[01]\d{8}\b|postgresql\S*:\S*@", shown)


@pytest.mark.parametrize(
    ("moment", "number", "status"),
    [("broker", signal.SIGINT, 130), ("The shop sends", signal.SIGTERM, 143), (r"\d+ done", signal.SIGINT, 130)],
)
def test_a_stopped_demo_leaves_nothing(place: Path, moment: str, number: signal.Signals, status: int) -> None:
    demo = Running(place, "--orders", "40")
    demo.wait_for(moment)
    family = demo.family()
    demo.process.send_signal(number)
    assert demo.end(40) == status, demo.said
    assert family and not alive(family)
    assert not left_behind(place)


def test_with_keep_everything_answers_until_it_is_stopped(place: Path) -> None:
    demo = Running(place, "--orders", "12", "--keep")
    demo.wait_for("until Ctrl-C")
    family = demo.family()
    [config] = place.rglob("config.yaml")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "ORDERWATCH_CONFIG": str(config)}
    asked = [sys.executable, "-m", "orderwatch", "order", "why", "demo", "D-10006"]
    why = subprocess.run(asked, env=env, cwd=place, capture_output=True, text=True, check=False)
    assert "manual_route" in why.stdout, why.stderr
    [(url, token)] = re.findall(r"(http://127\.0\.0\.1:\d+)/login#token=(\S+)", demo.said)
    asked_for = urllib.request.Request(f"{url}/api/orders/demo/D-10006", headers={"authorization": f"Bearer {token}"})
    with urllib.request.urlopen(asked_for, timeout=20) as answer:
        assert "manual_route" in json.load(answer)["why"]["headline"]
    demo.process.send_signal(signal.SIGINT)
    assert demo.end(40) == 0, demo.said
    assert not alive(family) and not left_behind(place)


def test_the_demo_of_an_installed_wheel_needs_no_checkout(place: Path) -> None:
    source, installed = place / "source", place / "installed"
    for package in ("streams", "agents", "db", "orderwatch"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "config.yaml"):
        shutil.copy(ROOT / name, source)
    venv.create(installed, symlinks=True)
    python = installed / "bin" / "python"
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(installed)}))
    (packages / "locked.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")  # what it depends on
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--ignore-installed", "--no-build-isolation", str(source)], check=True, timeout=100)
    shutil.rmtree(source)
    demo = Running(place, "--orders", "12", code=packages, python=python)
    assert demo.end(100) == 0, demo.said


def test_two_demos_at_once_do_not_collide(place: Path) -> None:
    demos = [Running(place / name, "--orders", "12") for name in ("one", "two")]
    assert [demo.end() for demo in demos] == [0, 0], [demo.said for demo in demos]
    assert [demo.document()["books"]["shop"]["orders"] for demo in demos] == [12, 12]


def test_a_provider_that_sells_twice_fails_the_demo(place: Path) -> None:
    demo = Running(place, "--orders", "12", change=SOLD_TWICE)
    assert demo.end() == 1, demo.said
    said = demo.document()
    assert not said["agree"] and said["books"]["providers"]["bought_twice"] == 1
    assert len(said["differences"]) == 1 and "2 times" in said["differences"][0]
    assert left_behind(place), "the logs of a failed run are kept"


def test_a_demo_that_runs_out_of_time_fails(place: Path) -> None:
    demo = Running(place, "--orders", "12", change=NO_TIME)
    assert demo.end() == 1, demo.said
    assert any("not everything had ended" in line for line in demo.document()["differences"])
