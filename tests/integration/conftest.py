"""Whole systems for the integration tests: one per module, because starting one takes seconds."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from orderwatch.localservers.bundled import Postgres
from tests.conftest import run_sql
from tests.system import System

Start = Callable[..., System]


@pytest.fixture(scope="module")
def system_of(postgres: Postgres, template: str, parts_directory: Path) -> Iterator[Start]:
    """``system_of(broker_address, settings=..., scenario=...)``: a system with a database of its own."""
    started: list[tuple[System, str]] = []

    def start(broker: str, **overrides: Any) -> System:
        name = f"system_{uuid4().hex}"
        run_sql(postgres, f"create database {name} template {template}")
        system = System(parts_directory / name, broker, postgres.url_of(name), **overrides)
        started.append((system, name))
        return system.__enter__()

    yield start
    for system, name in started:
        system.__exit__()
        run_sql(postgres, f"drop database {name} with (force)")
