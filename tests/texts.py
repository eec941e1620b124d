"""Keeps the catalogues of the pages in step with the code: ``python -m tests.texts`` adds and drops texts.

A text is marked by ``t(...)`` in a template, ``N_(...)``, ``t(...)`` or ``say(...)`` in Python.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.pofile import read_po, write_po

from agents.diagnosis import explain, wording

ROOT = Path(__file__).parents[1]
LOCALE = ROOT / "orderwatch" / "dashboard" / "locale"
LANGUAGES = ("ar", "tr")
#: The files say nothing about when; version control does.
_BORN = datetime(2026, 1, 1, tzinfo=UTC)
KEYWORDS = {"t": None, "N_": None, "say": None}
PLACES = (
    "orderwatch/dashboard/**/*.py",
    "orderwatch/dashboard/templates/*.html",
    "agents/diagnosis/explain.py",
    "agents/diagnosis/wording.py",
)


def texts() -> Iterator[tuple[str, str]]:
    """(where, text) of everything that is said on a page."""
    for path in sorted({path for pattern in PLACES for path in ROOT.glob(pattern)}):
        method = "jinja2.ext:babel_extract" if path.suffix == ".html" else "python"
        with path.open("rb") as file:
            for _, message, _, _ in extract(method, file, keywords=KEYWORDS, options={"silent": "false"}):
                if isinstance(message, str):
                    yield str(path.relative_to(ROOT)), message
    for wrong, act in explain._CODES.values():
        yield "agents/diagnosis/explain.py", wrong
        yield "agents/diagnosis/explain.py", act
    yield from (("agents/diagnosis/explain.py", ended) for ended in explain.ENDED.values())
    yield from (("agents/diagnosis/wording.py", unit) for unit, _ in wording.UNITS)


def catalogue(language: str) -> Catalog:
    with (LOCALE / f"{language}.po").open("rb") as file:
        return read_po(file, locale=language)


def write(language: str) -> list[str]:
    """Bring one catalogue up to date; the texts that still lack a translation."""
    old = catalogue(language)
    made = Catalog(
        locale=language,
        project="Orderwatch",
        version="0",
        charset="utf-8",
        fuzzy=False,
        creation_date=_BORN,
        revision_date=_BORN,
        last_translator="Orderwatch",
        language_team=language,
        msgid_bugs_address="none",
        header_comment=f"# The pages of Orderwatch: {language}.",
    )
    for place, message in texts():
        said = old.get(message)
        made.add(message, said.string if said is not None else "", locations=[(place, None)])
    with (LOCALE / f"{language}.po").open("wb") as file:
        write_po(file, made, omit_header=False, sort_by_file=True, width=120, include_lineno=False)
    return [str(item.id) for item in made if item.id and not item.string]


if __name__ == "__main__":
    for language in LANGUAGES:
        missing = write(language)
        print(f"{language}: {len(missing)} without a translation", *missing, sep="\n  ")
