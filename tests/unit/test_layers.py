"""What import-linter cannot check: where SQL is written, and that importing a package does nothing."""

import ast
import gc
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("streams", "agents", "db", "orderwatch", "bench")


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            if name.startswith("bench.peers.") or name == "bench.plots":
                continue  # they are no part of the product, and run in an environment of their own
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def nodes(path: Path) -> list[ast.AST]:
    """Everything in a file. A collection inside the parser can end in a SystemError on Python 3.11 (gh-106905)."""
    gc.disable()
    try:
        return list(ast.walk(ast.parse(path.read_text("utf-8"))))
    finally:
        gc.enable()


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith(("db", "orderwatch.simulator"))])
def test_sql_is_written_in_db_only(name: str) -> None:
    """A text that begins like a statement is one; helpers of the command line that need one say so in the table."""
    told = {"orderwatch.demo.numbers", "bench.contenders", "bench.evidence", "bench.history", "bench.others"}
    spoken = [
        node.value.strip()[:40]
        for node in nodes(MODULES[name])
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.strip().lower().startswith(("select ", "insert into ", "update ", "delete from ", "with input"))
        and (" from " in node.value.lower() or " set " in node.value.lower() or " into " in node.value.lower())
    ]
    assert not spoken or name in told, spoken


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_does_nothing(package: str) -> None:
    assert not (ROOT / package / "__init__.py").read_text("utf-8").strip()
