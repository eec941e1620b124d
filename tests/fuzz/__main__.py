"""``make fuzz``: every target in turn, a table of what was tried, and status 1 when anything was found."""

import argparse
import sys

from tests.fuzz.engine import ROOT, Report, can_guide, keep, run_guided, run_seeded
from tests.fuzz.targets import TARGETS

INPUTS = 1_000_000
#: Part of a target's inputs that atheris chooses where it is installed: it finds more per input and takes longer.
GUIDED = 0.1


def main() -> int:
    """The exit status: 0 when every input was handled and no order was settled wrongly."""
    parser = argparse.ArgumentParser(prog="make fuzz ARGS=...", description=__doc__)
    parser.add_argument("--inputs", type=int, default=INPUTS, help=f"of all targets together; default {INPUTS:,}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", metavar="TEXT", help="targets whose name contains this")
    parser.add_argument(
        "--engine",
        choices=("both", "seeded", "atheris"),
        default="both",
        help="both: atheris takes a tenth, where it is installed",
    )
    given = parser.parse_args()
    targets = [target for target in TARGETS if given.only in target.name]
    whole = sum(target.share for target in targets)
    guided = {"both": GUIDED, "seeded": 0.0, "atheris": 1.0}[given.engine]
    if guided and not can_guide():
        print("atheris is not installed (extra `fuzz`; it has no wheel for every Python): all inputs are seeded")
        guided = 0.0
    print(f"{'target':36}{'engine':9}{'inputs':>10}{'seconds':>9}{'findings':>10}")
    reports = []
    for target in targets:
        share = given.inputs * target.share / whole
        for run, inputs in ((run_seeded, round(share * (1 - guided))), (run_guided, round(share * guided))):
            if inputs:
                reports.append(run(target, inputs, given.seed))
                _say(reports[-1])
    if not given.only:
        from tests.fuzz import api, pages

        for run_web in (api.run, pages.run):
            reports.append(run_web(round(given.inputs * 0.02), given.seed))
            _say(reports[-1])
    found = sum(len(report.findings) for report in reports)
    total, seconds = sum(report.inputs for report in reports), sum(report.seconds for report in reports)
    print(f"{'all':36}{'':9}{total:>10,}{seconds:>9.1f}{found:>10}   seed {given.seed}")
    return 1 if found else 0


def _say(report: Report) -> None:
    print(
        f"{report.target:36}{report.engine:9}{report.inputs:>10,}{report.seconds:>9.1f}{len(report.findings):>10}",
        flush=True,
    )
    for finding, path in zip(report.findings, keep(report), strict=True):
        print(f"    {finding}\n    {path.relative_to(ROOT)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
