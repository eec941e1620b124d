"""Command-line options of the conformance kit: ``pytest -p agents.providers.testing.plugin``."""

import json
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    kit = parser.getgroup("provider conformance")
    kit.addoption("--provider", metavar="MODULE:CLASS", help="the adapter to run through the kit")
    kit.addoption("--provider-mapping", type=_object, default={}, metavar="JSON", help="keys added to the mapping")
    kit.addoption("--provider-options", type=_object, default={}, metavar="JSON", help="options of the integration")
    kit.addoption("--provider-credentials", type=_object, default={}, metavar="JSON", help="instead of invented ones")
    kit.addoption("--provider-accepts", metavar="FILE", help="a body the adapter must read as an accepted placement")


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    return value
