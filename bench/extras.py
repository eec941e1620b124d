"""The environment of the peers, the profiler and the plots: made from its own lock the first time it is needed."""

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

from orderwatch.localservers.apache_kafka import ROOT
from orderwatch.localservers.bundled import PartError

LOCK = Path(__file__).parent / "requirements.lock"


def environment() -> Path:
    """Its directory of programs. Takes half a minute and a package index the first time; raises ``PartError``."""
    place = ROOT / ".cache" / f"bench-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / "bench.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "ready").exists():
            _run([sys.executable, "-m", "venv", "--clear", str(place)])
            _run(
                [
                    str(place / "bin" / "python"),
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                    "--no-input",
                    "--require-hashes",
                    "-r",
                    str(LOCK),
                ]
            )
            (place / "ready").touch()
    return place / "bin"


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the command is ours
    if done.returncode:
        raise PartError(f"the environment of bench/requirements.lock: {(done.stdout + done.stderr)[-2000:]}")
