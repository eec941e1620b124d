"""Draws what the benchmark wrote: ``python -m bench.plots RESULT.json ... --into DIRECTORY``, as SVG and PNG.

Runs in the environment of bench/requirements.lock: ``make bench-plots``.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import median

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

_SIZE = (7.0, 4.0)


def of_sweep(runs):
    """Orders per second over the calls allowed at the same time, one line per contender."""
    found = defaultdict(lambda: defaultdict(list))
    for run in runs:
        name = run["contender"].partition(",")[0]
        found[name][run["options"]["concurrency"]].append(run["ended_rate"])
    figure, axes = plt.subplots(figsize=_SIZE)
    for name, by_concurrency in found.items():
        at = sorted(by_concurrency)
        axes.plot(at, [median(by_concurrency[n]) for n in at], marker="o", label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(at, [str(n) for n in at])
    axes.set_xlabel("calls allowed at the same time")
    axes.set_ylabel("orders per second, to their end")
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def of_lateness(runs):
    """Share of checks that were late by at most so much."""
    figure, axes = plt.subplots(figsize=_SIZE)
    for run in runs:
        values = [max(value, 0.01) for value in run["late_quantiles_ms"]]
        rate = run["options"]["rate"]
        label = f"{run['contender']}, {rate:g} orders/s" if rate else f"{run['contender']}, burst"
        axes.plot(values, [step / (len(values) - 1) for step in range(len(values))], label=label)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds after the check was due")
    axes.set_ylabel("share of checks")
    axes.legend()
    return figure


def of_backlog(readings):
    """Memory of worker and broker over pending checks."""
    running = [reading for reading in readings if not reading["at_start"]]
    figure, axes = plt.subplots(figsize=_SIZE)
    for name in ("worker", "broker"):
        axes.plot([r["pending"] for r in running], [r[name] / 2**20 for r in running], marker="o", label=name)
    axes.set_xscale("log")
    axes.set_xlabel("checks pending")
    axes.set_ylabel("MB")
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def main():
    parser = argparse.ArgumentParser(description="Plots of benchmark results.")
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--into", type=Path, required=True)
    given = parser.parse_args()
    said = [json.loads(path.read_text("utf-8")) for path in given.results]
    runs = {
        mode: [run for one in said if one["mode"] == mode for run in one["runs"]]
        for mode in ("sweep", "throughput", "latency")
    }
    readings = [reading for one in said for reading in one["backlog"]]
    wanted = {
        "throughput-over-concurrency": (of_sweep, runs["sweep"]),
        "lateness": (of_lateness, first_of_each(runs["latency"] + runs["throughput"])),
        "memory-over-backlog": (of_backlog, readings),
    }
    given.into.mkdir(parents=True, exist_ok=True)
    plt.rcParams["svg.hashsalt"] = "orderwatch"
    for name, (draw, data) in wanted.items():
        if not data:
            continue
        figure = draw(data)
        figure.tight_layout()
        figure.savefig(given.into / f"{name}.svg", metadata={"Date": None})
        figure.savefig(given.into / f"{name}.png", dpi=120)


def first_of_each(runs):
    """One run of each contender and rate."""
    found = {}
    for run in runs:
        found.setdefault((run["contender"], run["options"]["rate"]), run)
    return list(found.values())


if __name__ == "__main__":
    main()
