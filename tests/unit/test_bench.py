"""The benchmark's arithmetic: percentiles, lateness, the load, the table."""

from pathlib import Path

import pytest
import yaml

from bench import backlog, evidence, options, profiling, recovery, report
from bench.evidence import Evidence
from bench.figures import Spread, lateness, percentile, quantiles, repeated, spread
from bench.options import Options
from bench.processes import Cost
from streams.config.loader import load
from streams.errors import ConfigError


def test_a_percentile_is_a_value_that_was_measured() -> None:
    ordered = [float(n) for n in range(1, 101)]
    assert (percentile(ordered, 0.5), percentile(ordered, 0.99), percentile(ordered, 1.0)) == (50, 99, 100)
    assert percentile([7.0], 0.5) == percentile([7.0], 0.99) == 7
    assert percentile([], 0.5) == 0


def test_a_spread_needs_no_order_and_survives_nothing() -> None:
    assert spread([3, 1, 2]) == Spread(3, 2, 3, 3, 1)
    assert spread([]) == Spread(0, 0, 0, 0, 0)


def test_repeats_show_the_median_and_how_far_apart_they_are() -> None:
    seen = repeated([1.0, 4.0, 2.0])
    assert (seen.median, seen.low, seen.high, seen.swing) == (2, 1, 4, 1.5)
    with pytest.raises(ValueError, match="no run"):
        repeated([])


@pytest.mark.parametrize(
    ("due", "asked", "late"),
    [
        ([10.0, 20.0], [10.5, 21.0], [0.5, 1.0]),
        ([20.0, 10.0], [21.0, 10.5], [0.5, 1.0]),  # in whatever order they were read
        ([10.0, 11.0], [12.0], [2.0]),  # put off once: late since it was due at first
        ([10.0], [9.5], [-0.5]),  # early
        ([10.0, 3600.0], [10.0], [0.0]),  # what is due after the run was not asked
        ([10.0], [10.5, 11.0], [0.5]),  # a question nobody scheduled is no check
        ([], [1.0], []),
    ],
)
def test_lateness_pairs_questions_with_what_was_due(due: list[float], asked: list[float], late: list[float]) -> None:
    assert lateness(due, asked) == late


def test_the_request_log_counts_a_batch_as_one_call_and_many_questions() -> None:
    said = evidence.heard(
        [
            {"operation": "place", "reference": "a", "at_ns": 1_000_000_000},
            {"operation": "check", "reference": '["ID_1","b"]', "at_ns": 2_000_000_000},
            {"operation": "check", "reference": "a", "at_ns": 3_000_000_000},
        ],
        {"ID_1": "a"},
    )
    assert said.calls == {"place": 1, "check": 2} and said.questions == 3
    assert said.placed == {"a": 1.0} and said.asked == {"a": [2.0, 3.0], "b": [2.0]}


def test_whoever_keeps_no_schedule_is_measured_against_the_earliest_possible_answer() -> None:
    said = evidence.heard(
        [
            {"operation": "place", "reference": "a", "at_ns": 1_000_000_000},
            {"operation": "check", "reference": "a", "at_ns": 3_000_000_000},
        ]
    )
    assert evidence.late(Evidence(due=None), said, 1.0, 0.25) == [0.75]


def test_a_mix_is_read_and_a_wrong_one_is_named() -> None:
    assert options.mix_of("znet") == {"znet": 1}
    assert options.mix_of("znet=8,barakat=2") == {"znet": 8, "barakat": 2}
    for wrong in ("cheap", "znet=many", "znet=0"):
        with pytest.raises(ConfigError, match="--mix"):
            options.mix_of(wrong)


def test_the_shop_mixes_providers_by_their_share() -> None:
    placed = list(options.orders(Options(mix={"znet": 8, "barakat": 2}), "m", 100))
    assert sum(order.package_id == "batch" for order in placed) == 20
    assert len({order.order_id for order in placed}) == 100


def test_the_configuration_of_a_run_is_valid(tmp_path: Path) -> None:
    database = "postgresql://u:p@127.0.0.1/r1"
    document = options.config(Options(checks=3), "127.0.0.1:1", "r1.", database, "http://127.0.0.1:2")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    config = load(tmp_path / "config.yaml", options.ACCESS)
    assert config.checks.first_after == 1 and config.tier_name(1.0) == "orders.retry.1s"


def test_several_runs_become_one_row_of_medians() -> None:
    def run(cpu: float) -> report.Result:
        costs = report.per_thousand({"worker": Cost(cpu, 2**20)}, 1000)
        flat = spread([1.0])
        return report.Result("orderwatch", Options(), 1, 2, 3, costs, {"worker": 1.0}, flat, flat, 0, {}, 0)

    [row] = report.rows([run(1.0), run(3.0), run(2.0)])
    assert row[:3] == ("orderwatch", "3", "2.00 (1.00-3.00)")


def test_a_distribution_is_drawn_from_its_least_to_its_most() -> None:
    assert quantiles([float(n) for n in range(101)], steps=4) == [0, 25, 50, 75, 100]
    assert quantiles([]) == []


def test_a_profile_counts_who_ran_and_who_was_on_the_stack() -> None:
    found = profiling.folded(
        [
            "thread (0x7f): MainThread;run (/x/agents/pool.py:1);get (/v/python3.11/site-packages/aiohttp/c.py:2) 3",
            "thread (0x7e): store_0;write (/v/lib/python3.11/json/encoder.py:5) 1",
            "no count here",
        ]
    )
    assert found.samples == 4 and found.threads == {"MainThread": 3, "store_0": 1}
    assert found.areas == {"aiohttp": 3, "json": 1}
    assert found.whole["run (/x/agents/pool.py:1)"] == 3 and found.own["run (/x/agents/pool.py:1)"] == 0


def test_the_busiest_window_shows_the_rate_of_an_open_lane() -> None:
    steady = [second + part / 10 for second in range(20) for part in range(10)]
    assert recovery.busiest(steady) == 10
    assert recovery.busiest([1.0] * 20) == 2  # 20 in one second of ten
    assert recovery.busiest([]) == 0


def test_memory_per_check_is_what_more_of_them_cost() -> None:
    fresh = backlog.Reading(1001, 999, 999, at_start=True)
    readings = [backlog.Reading(1, 1000, 500), backlog.Reading(1001, 2000, 1500), fresh]
    assert backlog.per_check(readings) == 2.0
