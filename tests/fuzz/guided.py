"""The process of one coverage-guided run: ``python -m tests.fuzz.guided TARGET INPUTS SEED REPORT``."""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["streams", "agents", "orderwatch", "db"], enable_loader_override=False):
    from tests.fuzz.engine import guide
    from tests.fuzz.targets import TARGETS

name, inputs, seed, report = sys.argv[1:]
guide(next(target for target in TARGETS if target.name == name), int(inputs), int(seed), Path(report))
