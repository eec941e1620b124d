"""The shipped rules and dashboard speak of metrics that exist, and every alert says what to do."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from streams.metrics import BY_NAME

ROOT = Path(__file__).parents[2]
RULES = ROOT / "ops/prometheus/alerts.yaml"
RUNBOOK = (ROOT / "docs/runbook.md").read_text("utf-8")

_METRIC = re.compile(r"\b((?:orderwatch|process)_[a-z_]+)(\{[^}]*\})?")
_GROUPED = re.compile(r"by \(([^)]*)\)")
#: What Prometheus adds to every series, or to a histogram's.
_ADDED = {"instance", "job", "le"}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "ops/grafana/orderwatch.json").read_text("utf-8"))
    return found


def expressions() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def declared(name: str) -> tuple[str, ...] | None:
    """Labels of a series by its name in an expression; None when there is no such series."""
    if name.startswith("process_"):
        return () if name in ("process_cpu_seconds_total", "process_resident_memory_bytes") else None
    for suffix in ("_bucket", "_sum", "_count"):
        base = BY_NAME.get(name.removesuffix(suffix))
        if name.endswith(suffix) and base is not None and base.kind == "histogram":
            return base.labels
    found = BY_NAME.get(name)
    return found.labels if found is not None and found.kind != "histogram" else None


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_an_expression_uses_series_and_labels_that_exist(where: str, expression: str) -> None:
    found = _METRIC.findall(expression)
    assert found, "it asks for no metric"
    known = set(_ADDED)
    for name, matchers in found:
        labels = declared(name)
        assert labels is not None, f"{name} is not in streams/metrics.py"
        asked = set(re.findall(r"([a-z]+)=", matchers))
        assert asked <= set(labels), f"{name} has no label {asked - set(labels)}"
        known |= set(labels)
    for group in _GROUPED.findall(expression):
        assert {label.strip() for label in group.split(",")} <= known


def test_counters_are_read_as_rates_only() -> None:
    for where, expression in expressions():
        for name, matchers in _METRIC.findall(expression):
            if name.endswith(("_total", "_bucket", "_sum", "_count")):
                assert re.search(r"(rate|increase)\(" + re.escape(name + matchers), expression), f"{where}: {name}"


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_has_a_severity_a_summary_and_a_whole_runbook_entry(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket") and rule["annotations"]["summary"]
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
    entry = RUNBOOK.partition(f"## {rule['alert']}\n")[2].partition("\n## ")[0]
    assert [part for part in ("Meaning", "Check", "Act", "Verify") if f"**{part}.** " not in entry] == []


def test_the_runbook_has_no_entry_of_an_alert_that_is_gone() -> None:
    assert re.findall(r"^## (\w+)$", RUNBOOK, re.M) == [rule["alert"] for rule in rules()]


def test_every_metric_of_the_runbook_exists() -> None:
    for name in re.findall(r"`(orderwatch_[a-z_]+)`", RUNBOOK):
        assert name in BY_NAME, name


def test_every_metric_is_on_the_dashboard_or_has_a_rule() -> None:
    shown = {name for _, expression in expressions() for name, _ in _METRIC.findall(expression)}
    assert [name for name in BY_NAME if not {name, f"{name}_bucket", f"{name}_sum"} & shown] == []


def test_panels_lie_beside_each_other_and_have_an_id_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian's package prometheus) is not installed")
def test_promtool_accepts_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
