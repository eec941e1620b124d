"""docs/reliability.md names the tests behind each row of the failure matrix; they must exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text("utf-8")
FILES = {path.stem: path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
ROWS = {int(row[1]): row[2] for row in re.finditer(r"^\| (\d+) \| [^|]* \| ([^|]*) \|$", PAGE, re.MULTILINE)}


def test_every_row_of_the_failure_matrix_names_a_test_that_exists() -> None:
    assert sorted(ROWS) == list(range(1, 25))
    for number, cell in ROWS.items():
        module = ""
        names = re.findall(r"`([a-z_0-9]*)(?:::(test_[a-z_0-9]+))?`", cell)
        assert names, f"row {number} names no test"
        for file, test in names:
            module = file or module
            assert module in FILES, f"row {number}: {module}"
            assert not test or f"def {test}(" in FILES[module], f"row {number}: {test}"
