"""Every row of the failure matrix names tests, and they exist."""

import subprocess
import sys

from tests.chaos.matrix import ROWS
from tests.system import ROOT


def test_every_row_of_the_matrix_has_its_tests() -> None:
    assert [row.number for row in ROWS] == list(range(1, 25))
    assert all(row.tests for row in ROWS)


def test_every_test_that_the_matrix_names_exists() -> None:
    named = {test for row in ROWS for test in row.tests}
    files = sorted({f"tests/{test.split('::')[0]}" for test in named})
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-m", "kafka or not kafka",
         *files], cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout[-2000:] + told.stderr[-2000:]
    found = {line.split("[")[0].removeprefix("tests/") for line in told.stdout.splitlines() if "::" in line}
    assert named <= found, f"no such test: {sorted(named - found)}"
