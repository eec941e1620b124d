"""How the report counts."""

from datetime import UTC, datetime

from tests.chaos.report import Findings, Happened, longest_stall, markdown, progress_after


def test_the_longest_stall_is_the_longest_time_without_a_change() -> None:
    assert longest_stall([1.0, 2.0, 7.0, 8.0], []) == (5.0, 2.0)


def test_time_in_which_something_was_down_is_no_stall() -> None:
    assert longest_stall([0.0, 10.0], [(2.0, 6.0)]) == (4.0, 6.0)
    assert longest_stall([0.0, 10.0], [(2.0, 6.0), (5.0, 9.0)]) == (2.0, 0.0)
    assert longest_stall([0.0, 10.0, 11.0], [(0.0, 20.0)]) == (0.0, 0.0)


def test_progress_is_the_first_change_after_a_moment() -> None:
    assert progress_after([1.0, 4.0], 1.5) == 2.5
    assert progress_after([1.0], 1.5) is None


def test_a_finding_is_in_the_report_with_the_command_that_repeats_it() -> None:
    found = Findings(7, "make chaos ARGS='--seed 7'", bought_twice=["shop/c7-1: line 1 was bought 2 times"])
    found.happened.append(Happened("worker killed", "SIGKILL of worker 0", 1.0, 3.0, 0.5))
    page = markdown(found, datetime(2026, 1, 1, tzinfo=UTC), "2 cores")
    assert "| bought twice | 1 |" in page
    assert "shop/c7-1" in page and found.command in page
    assert "| 1 s | SIGKILL of worker 0 | 2.0 s | 0.5 s |" in page
