"""docs/failure-matrix.md shows the failure matrix of tests/chaos/matrix.py, whose tests exist."""

from pathlib import Path

from tests.chaos.matrix import PAGE, ROWS, markdown

TESTS = Path(__file__).parents[1]


def test_every_row_of_the_failure_matrix_names_tests_that_exist() -> None:
    assert [row.number for row in ROWS] == list(range(1, 25))
    for row in ROWS:
        assert row.tests, f"row {row.number} names no test"
        for test in row.tests:
            file, name = test.split("::")
            assert f"def {name}(" in (TESTS / file).read_text("utf-8"), f"row {row.number}: {test}"


def test_the_page_shows_the_matrix() -> None:
    assert markdown() in PAGE.read_text("utf-8"), "run python -m tests.chaos.matrix, which writes it there"
