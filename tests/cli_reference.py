"""docs/cli.md from the commands of the Typer application: ``python -m tests.cli_reference`` writes it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from orderwatch.cli.main import app

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
_HEAD = """# Command line

Generated from the code (`python -m tests.cli_reference`); a test compares it. `orderwatch COMMAND --help` explains each
option. Exit status: 0 done; 1 the thing asked about failed or does not exist; 2 wrong usage or configuration, or a
server that does not answer.

| command | meaning | options |
|---|---|---|
"""


def commands() -> dict[str, Any]:
    """Every leaf command by its words, such as ``order why``."""
    return dict(_leaves(get_command(app), ()))


def _leaves(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield " ".join(words), command
        return
    for name, child in command.commands.items():
        yield from _leaves(child, (*words, name))


def markdown() -> str:
    """One row per command: its call, the first sentence of its help, its options."""
    rows = []
    for name, command in sorted(commands().items()):
        arguments = [f" {p.name.upper()}" for p in command.params if p.param_type_name == "argument"]
        options = [f"`{p.opts[-1]}`" for p in command.params if p.param_type_name == "option"]
        meaning = " ".join((command.help or "").split("\n\n")[0].split()).replace("|", "\\|")
        rows.append(f"| `orderwatch {name}{''.join(arguments)}` | {meaning} | {' '.join(options) or '-'} |\n")
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(markdown(), "utf-8")
