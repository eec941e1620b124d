"""The table of metrics, the cheap counters behind it, and what an order may cost."""

import time
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streams import metrics
from streams.metrics import DECLARED, MOST_CHILDREN, Label, Metrics

ROOT = Path(__file__).parents[2]


def samples(made: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(made.text().decode())
        for sample in family.samples
    }


def test_docs_metrics_is_what_the_table_says() -> None:
    assert (ROOT / "docs/metrics.md").read_text("utf-8") == metrics.markdown(), "run the command in its first lines"


@pytest.mark.parametrize("declared", DECLARED, ids=lambda declared: declared.name)
def test_a_metric_says_its_unit_its_meaning_and_when_to_worry(declared: metrics.Declared) -> None:
    assert declared.meaning.endswith((".", ")")) and declared.worry.endswith((".", ")")) and declared.unit
    assert declared.name.endswith("_total") == (declared.kind == "counter")
    assert bool(declared.bounds) == (declared.kind == "histogram")
    assert set(declared.labels) <= set(get_args(Label)) and list(declared.bounds) == sorted(declared.bounds)


def test_a_scrape_says_what_was_counted() -> None:
    made = Metrics()
    made.counter("orderwatch_events_total", "check", "done").inc(3)
    made.counter("orderwatch_events_total", "check", "done").inc()
    for seconds in (0.004, 0.02, 0.02, 99):
        made.histogram("orderwatch_handler_seconds", "check").observe(seconds)
    made.gauges("orderwatch_gateway_rate", {("one",): 5.0})
    made.gauges("orderwatch_gateway_rate", {("two",): 2.5})
    found = samples(made)
    assert found["orderwatch_events_total", (("agent", "check"), ("outcome", "done"))] == 4
    bucket = "orderwatch_handler_seconds_bucket"
    assert [found[bucket, (("agent", "check"), ("le", le))] for le in ("0.005", "0.025", "30", "+Inf")] == [1, 3, 3, 4]
    assert found["orderwatch_handler_seconds_sum", (("agent", "check"),)] == pytest.approx(99.044)
    assert [key for key in found if key[0] == "orderwatch_gateway_rate"] == [
        ("orderwatch_gateway_rate", (("integration", "two"),))
    ], "what is no more is not shown"
    assert any(name.startswith("process_") for name, _ in found)


def test_labels_without_end_share_one_child() -> None:
    made = Metrics()
    for number in range(MOST_CHILDREN + 50):
        made.counter("orderwatch_put_off_total", f"i-{number}").inc()
    found = {key: value for key, value in samples(made).items() if key[0] == "orderwatch_put_off_total"}
    assert len(found) == MOST_CHILDREN + 1
    assert found["orderwatch_put_off_total", (("integration", "other"),)] == 50


def test_what_an_order_counts_costs_less_than_twenty_microseconds() -> None:
    """Of an order with one check: five events, two calls, five statements, six written events; the best of many."""
    made = Metrics()
    done = made.counter("orderwatch_events_total", "dispatch", "done")
    seconds = made.histogram("orderwatch_handler_seconds", "dispatch")
    best = float("inf")
    for _ in range(200):
        began = time.perf_counter()
        for _ in range(5):
            took = time.perf_counter()
            done.inc()
            seconds.observe(time.perf_counter() - took)
        for _ in range(2 + 5 + 6):
            done.inc()
            seconds.observe(0.2)
        best = min(best, time.perf_counter() - began)
    assert best < 20e-6, f"{best * 1e6:.1f} microseconds"
