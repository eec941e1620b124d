"""Every text of the pages in every language, and how times, money and unknown wishes are said."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from orderwatch.dashboard.html import own_path
from orderwatch.dashboard.i18n import LANGUAGES, chosen, tongue
from tests import texts as kept

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TEXTS = sorted({text for _, text in kept.texts()})


def fillings(text: str) -> list[str]:
    """What a translation has to keep: names to fill, and commands to copy."""
    return sorted(re.findall(r"\{\w+\}|`[^`]+`", text))


def test_the_pages_say_hundreds_of_texts() -> None:
    assert len(TEXTS) > 350
    assert {"Overview", "Completed", "Check now", "{n} min"} <= set(TEXTS)


@pytest.mark.parametrize("language", kept.LANGUAGES)
def test_every_text_has_a_translation_that_keeps_its_names_and_commands(language: str) -> None:
    catalogue = kept.catalogue(language)
    wrong = [
        text
        for text in TEXTS
        if (said := catalogue.get(text)) is None
        or not said.string
        or said.fuzzy
        or fillings(text) != fillings(str(said.string))
    ]
    assert not wrong, "python -m tests.texts"


@pytest.mark.parametrize("language", kept.LANGUAGES)
def test_no_translation_is_left_over(language: str) -> None:
    assert {str(item.id) for item in kept.catalogue(language) if item.id} <= set(TEXTS), "python -m tests.texts"


def test_arabic_reads_from_right_to_left_with_digits_that_everybody_can_copy() -> None:
    arabic = tongue("ar")
    assert arabic.direction == "rtl"
    assert arabic.number(1234567) == "1,234,567"
    assert "3" in arabic.ago(NOW - timedelta(minutes=3), NOW)


@pytest.mark.parametrize(
    ("cookie", "accepted", "expected"),
    [
        ("tr", "ar", "tr"),
        (None, "ar-SY,ar;q=0.9,en;q=0.8", "ar"),
        (None, "fr;q=0.9,tr;q=0.8", "tr"),
        (None, "en;q=0.3,ar;q=0.7", "ar"),
        (None, "fr", "en"),
        ("../../etc", "", "en"),
        (None, ";;q=x,=,tr;q=,q=1", "tr"),
    ],
)
def test_the_language_is_the_chosen_one_or_the_best_of_the_browsers(
    cookie: str | None, accepted: str, expected: str
) -> None:
    assert chosen(cookie, accepted) == expected


def test_money_is_never_rounded() -> None:
    english = tongue("en")
    assert "1,234.5678" in english.money(Decimal("1234.5678"), "TRY")
    assert "12.50" in english.money(Decimal("12.5"), "TRY")
    assert "no currency told" in english.money(Decimal(1), None)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_command_in_a_sentence_can_be_copied_from_left_to_right(language: str) -> None:
    said = tongue(language).code("<x> `orderwatch order why` <y>")
    assert said == '&lt;x&gt; <code dir="ltr">orderwatch order why</code> &lt;y&gt;'


@pytest.mark.parametrize("path", ["//elsewhere", "https://elsewhere", "/\\elsewhere", "elsewhere", "/a\nb", ""])
def test_a_way_back_never_leads_elsewhere(path: str) -> None:
    assert own_path(path) == "/"
