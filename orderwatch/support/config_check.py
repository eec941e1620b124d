"""Loads ``config.yaml`` with every check there is, those of the provider adapters included."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streams.config.loader import Config


def loaded_with_checks(path: Path) -> "Config":
    """The configuration in ``path``. Raises ``ConfigError`` with one line per mistake."""
    from agents import config_check  # imported late: the adapters bring the HTTP client along
    from streams.config.loader import load
    from streams.config.rules import missing_files

    return load(path, os.environ, lambda config: [*missing_files(config), *config_check.problems(config)])
