"""README and docs/: links resolve, commands exist, retired words are gone, drawings and tables match the code."""

import re
from pathlib import Path

import pytest
import yaml

from streams.order import ATTEMPT_MOVES
from tests.cli_reference import PAGE, commands, markdown

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("examples/**/*.md")), *sorted(DOCS.rglob("*.md"))]
#: Generated from texts of the code, which has its own tests.
GENERATED = {DOCS / name for name in ("cli.md", "configuration.md", "metrics.md")}
#: Words that the code no longer has, or that only ever were names of persons for parts.
RETIRED = (
    "tell_again",
    "tell again",
    "told again",
    "Hand",
    "leash",
    "untold",
    "keeper",
    "rehearsal",
    "rehearsed",
    "Deps",
    "books",
    "delay line",
    "DelayLine",
    "decide.py",
    "flow.py",
    "lanes.py",
    "hand.py",
    "letters.py",
    "dry_routing",
)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(page: Path) -> str:
    """The page without its code blocks: output of programs is theirs."""
    return re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"(?m)^#+ +(.+)$", prose(page))
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def broken(page: Path, text: str) -> list[str]:
    """The relative link targets of ``text`` that name no file below the root, or no heading of the file."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            found.append(target)
    return found


def unknown(text: str) -> list[str]:
    """The ``orderwatch ...`` commands of ``text`` that the application does not have."""
    known = commands()
    groups = {name.split()[0] for name in known if " " in name}
    found = []
    for words in re.findall(r"(?:`|\$ |/|^|^ +|\()orderwatch ((?:[a-z-]+ ?){1,2})", text, flags=re.MULTILINE):
        first, *rest = words.split()
        name = " ".join([first, *rest]) if first in groups and rest else first
        if name not in known and not (first in groups and not rest):
            found.append(name)
    return found


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_relative_link_resolves(page: Path) -> None:
    assert broken(page, prose(page)) == []


@pytest.mark.parametrize(
    "link", ["missing.md", "docs/none.md", "docs/glossary.md#nothing", "docs", "LICENSE", "#orderwatch", "#none"]
)
def test_a_broken_link_is_found(link: str) -> None:
    good = link in ("docs", "LICENSE", "#orderwatch")
    assert broken(ROOT / "README.md", f"[x]({link})") == ([] if good else [link])


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_command_exists(page: Path) -> None:
    assert unknown(page.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("`orderwatch ordr why`", ["ordr"]),
        ("$ orderwatch order whi demo", ["order whi"]),
        ("    orderwatch dlq reply", ["dlq reply"]),
        ("$ .venv/bin/orderwatch lookup X", ["lookup"]),
        ("`orderwatch doctor`", []),
        ("$ orderwatch order why demo A-1", []),
        ("$ orderwatch doctor  # looks", []),
        ("`orderwatch order`", []),
        ("`orderwatch worker --processes 2`", []),
    ],
)
def test_an_unknown_command_is_found(text: str, found: list[str]) -> None:
    assert unknown(text) == found


@pytest.mark.parametrize("word", RETIRED)
def test_no_document_has_a_retired_word(word: str) -> None:
    pattern = re.compile(rf"\b{re.escape(word)}\b")
    written = [page for page in PAGES if page not in GENERATED]
    assert [relative(page) for page in written if pattern.search(prose(page))] == []


def test_the_drawn_state_machine_is_the_table_of_moves() -> None:
    drawn = re.findall(r"(?m)^  (\w+) --> (\w+)$", (DOCS / "architecture.md").read_text("utf-8"))
    states = {str(state) for state in ATTEMPT_MOVES}
    moves = {(str(state), str(after)) for state, all_after in ATTEMPT_MOVES.items() for after in all_after}
    assert {move for move in drawn if set(move) <= states} == moves
    ends = set(re.findall(r"(?m)^  (\w+) --> \[\*\]$", (DOCS / "architecture.md").read_text("utf-8")))
    assert ends == {str(state) for state, after in ATTEMPT_MOVES.items() if not after}


def test_the_command_reference_is_generated_from_the_application() -> None:
    assert markdown() == PAGE.read_text("utf-8"), "run python -m tests.cli_reference, which writes it"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


def test_every_file_that_the_glossary_names_exists() -> None:
    rows = [line for line in (DOCS / "glossary.md").read_text("utf-8").splitlines() if line.startswith("| ")]
    places = [place for row in rows for place in re.findall(r"`([a-z_]+/[a-z_/]*(?:\.py)?)`", row)]
    assert len(places) > 30
    assert [place for place in places if not (ROOT / place).exists()] == []


def test_every_page_is_in_the_navigation() -> None:
    text = re.sub(r"!!python/\S+", "", (ROOT / "mkdocs.yml").read_text("utf-8"))
    navigation = yaml.safe_load(text)["nav"]
    assert set(re.findall(r"[\w/-]+\.md", str(navigation))) == {
        str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")
    }
