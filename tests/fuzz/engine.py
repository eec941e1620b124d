"""One target, many inputs: seeded mutation, guided by coverage where atheris is installed and by results elsewhere."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.mutation import MAX_BYTES, Mutator
from tests.fuzz.targets import Target

ROOT = Path(__file__).parents[2]
FOUND = ROOT / ".cache" / "fuzz"
#: Inputs an engine keeps because they brought a new result.
_MOST_KEPT = 4000
#: An input of a few kilobytes that needs longer would stop a worker when it is as long as an answer may be.
_MOST_CPU_S = 2.0


@dataclass
class Report:
    """What a run of one target did. ``findings``: what went wrong and where -> the first input that did it, in hex."""

    target: str
    engine: str
    inputs: int = 0
    seconds: float = 0.0
    findings: dict[str, str] = field(default_factory=dict)


def attempt(target: Target, data: bytes, report: Report) -> object:
    """One input; what is wrong with it goes into the report."""
    report.inputs += 1
    began = time.process_time()
    try:
        result = target.check(data)
        if time.process_time() - began > _MOST_CPU_S:
            report.findings.setdefault(f"more than {_MOST_CPU_S:g} s of CPU for one input", data.hex())
        return result
    except Exception as error:  # noqa: BLE001 - whatever gets out of the product is what is looked for
        report.findings.setdefault(told(error), data.hex())
        return None


def told(error: BaseException) -> str:
    """The kind of a failure, its text where it is an assertion of ours, and where it was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    said = f" {str(error)[:80]!r}" if isinstance(error, AssertionError) else ""
    return f"{type(error).__name__}{said} at {Path(frame.filename).name}:{frame.lineno} ({frame.line})"


def run_seeded(target: Target, inputs: int, seed: int) -> Report:
    """``inputs`` inputs; the same seed gives the same ones."""
    report = Report(target.name, "seeded")
    began = time.monotonic()
    mutator = Mutator((target.name, seed), target.words)
    corpus = [*target.corpus()]
    seen: set[object] = set()
    for data in corpus[:inputs]:
        seen.add(attempt(target, data, report))
    while report.inputs < inputs:
        data = mutator.change(mutator.choose(corpus), corpus)
        result = attempt(target, data, report)
        if result not in seen:
            seen.add(result)
            if len(corpus) < _MOST_KEPT:
                corpus.append(data)
    report.seconds = time.monotonic() - began
    return report


def can_guide() -> bool:
    """Whether atheris is installed (extra ``fuzz``); it has no wheels for every Python."""
    return find_spec("atheris") is not None


def run_guided(target: Target, inputs: int, seed: int) -> Report:
    """As ``run_seeded``, in a process of its own with atheris choosing the inputs. Raises ``RuntimeError`` when that
    process ends without its report."""
    with tempfile.TemporaryDirectory(prefix="orderwatch-fuzz-") as scratch:
        path = Path(scratch) / "report.json"
        command = [sys.executable, "-m", "tests.fuzz.guided", target.name, str(inputs), str(seed), str(path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if not path.exists():
            raise RuntimeError(f"{target.name}: atheris ended with {done.returncode}: {done.stderr[-2000:]}")
        return Report(**json.loads(path.read_text(encoding="utf-8")))


def guide(target: Target, inputs: int, seed: int, path: Path) -> None:
    """Run atheris in this process; writes the report and ends the process."""
    import atheris

    report = Report(target.name, "atheris")
    mutator = Mutator((target.name, seed), target.words)
    corpus = [*target.corpus()]
    began = time.monotonic()

    def one(data: bytes) -> None:
        attempt(target, data, report)
        if report.inputs == inputs:
            report.seconds = time.monotonic() - began
            path.write_text(json.dumps(asdict(report)), encoding="utf-8")
            os._exit(0)

    def change(data: bytes, most: int, number: int) -> bytes:
        if number % 3:
            return mutator.change(data, corpus)[:most]
        mutated: bytes = atheris.Mutate(data, most)
        return mutated

    with tempfile.TemporaryDirectory(prefix="orderwatch-fuzz-") as scratch:
        for number, data in enumerate(corpus):
            (Path(scratch) / str(number)).write_bytes(data)
        options = [f"-seed={seed}", f"-max_len={MAX_BYTES}", "-verbosity=0", "-timeout=60"]
        atheris.Setup(["fuzz", *options, scratch], one, custom_mutator=change)
        atheris.Fuzz()


def keep(report: Report) -> list[Path]:
    """Write each finding's input into ``.cache/fuzz``; the files."""
    paths = []
    for found, data in report.findings.items():
        name = f"{report.target.split(',')[0].replace(' ', '-')}-{hashlib.sha256(found.encode()).hexdigest()[:8]}"
        FOUND.mkdir(parents=True, exist_ok=True)
        (FOUND / name).write_bytes(bytes.fromhex(data))
        paths.append(FOUND / name)
    return paths
