"""The pages in the reader's language: catalogues, and how instants, lengths of time, numbers and money are written.

The catalogues are read as they stand in ``locale/*.po``; nothing has to be compiled. English is what the code says.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from babel import Locale, negotiate_locale
from babel.dates import format_timedelta
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal
from babel.support import NullTranslations, Translations
from markupsafe import Markup, escape

from agents.diagnosis.redaction import hidden

LANGUAGES: Mapping[str, str] = {"en": "English", "ar": "العربية", "tr": "Türkçe"}
COOKIE = "orderwatch_language"

#: Around a value in a text from right to left: a name or a sentence keeps its own direction, and its brackets.
_ISOLATED = ("\u2068", "\u2069")

_LOCALE = Path(__file__).with_name("locale")


class PageLanguage:
    """Says things in one language. Calling it fills a pattern: ``t("Orders of {tenant}", tenant="demo")``."""

    def __init__(self, language: str) -> None:
        self.language = language
        self.locale = Locale.parse(language)
        self.direction = self.locale.text_direction
        self._catalogue = _catalogue(language)

    def __call__(self, pattern: str, **values: object) -> str:
        said = self._catalogue.gettext(pattern) if pattern else ""
        if not values:
            return said
        shown = {name: f"{_ISOLATED[0]}{value}{_ISOLATED[1]}" for name, value in values.items()}
        return said.format(**(shown if self.direction == "rtl" else values))

    def ago(self, at: datetime, now: datetime) -> str:
        """``3 minutes ago`` or ``in 20 seconds``."""
        return format_timedelta(at - now, add_direction=True, threshold=1.5, locale=self.locale)

    def age(self, since: datetime, now: datetime) -> str:
        """``3 minutes``."""
        return format_timedelta(now - since, threshold=1.5, locale=self.locale)

    def when(self, at: datetime | None, now: datetime) -> Markup:
        """The distance from now, which a script keeps right, with the exact instant behind it; a dash for None."""
        if at is None:
            return Markup('<span class="none">–</span>')
        exact = instant(at)
        shown = Markup('<time datetime="{}" title="{}" data-relative>{}</time>')
        return shown.format(at.astimezone(UTC).isoformat(timespec="seconds"), exact, self.ago(at, now))

    def span(self, length_s: float) -> str:
        """``5 minutes``."""
        return format_timedelta(timedelta(seconds=length_s), threshold=1.5, locale=self.locale)

    def number(self, value: int | float | Decimal) -> str:
        return str(format_decimal(value, locale=self.locale, decimal_quantization=False))

    def money(self, amount: Decimal | None, currency: str | None) -> Markup:
        """The amount as it is kept, never rounded, its currency beside it; a dash when it is not known."""
        if amount is None:
            return Markup('<span class="none">–</span>')
        shown = Markup('<span class="money"><bdi>{}</bdi> {}</span>')
        text = format_decimal(amount, format="#,##0.00########", locale=self.locale)
        return shown.format(text, currency or self("no currency told"))

    def seconds(self, length_s: float | None) -> str:
        """A short length, as machines take: ``0.35 s``."""
        if length_s is None:
            return "–"
        return self("{n} s", n=self.number(round(length_s, 2 if length_s < 10 else 0)))

    def code(self, text: str) -> Markup:
        """Text with `commands` in it, as a person can copy them: left to right in every language."""
        parts = text.split("`")
        shown = (
            Markup('<code dir="ltr">{}</code>').format(part) if number % 2 else escape(part)
            for number, part in enumerate(parts)
        )
        return Markup("").join(shown)


@cache
def tongue(language: str) -> PageLanguage:
    """The tongue of one of ``LANGUAGES``."""
    return PageLanguage(language)


def chosen(cookie: str | None, accepted: str) -> str:
    """The language that the reader chose, or the best of what the browser accepts, or English."""
    if cookie in LANGUAGES:
        return str(cookie)
    wishes = sorted(filter(None, map(_wish, accepted.split(",")[:20])), reverse=True)
    return negotiate_locale([language for _, language in wishes], list(LANGUAGES), sep="-") or "en"


def instant(at: datetime) -> str:
    """To the second, in UTC, and it says so."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def filters() -> dict[str, Callable[..., Any]]:
    """What templates may use beside the tongue."""
    return {"instant": isolated_instant, "hidden": hidden, "plain": plain}


def isolated_instant(at: datetime) -> Markup:
    """``instant`` on a page of either direction."""
    return Markup('<bdi dir="ltr">{}</bdi>').format(instant(at))


def plain(value: object) -> str:
    """A value of a timeline's details, as one line of text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _wish(part: str) -> tuple[float, str] | None:
    """One entry of Accept-Language: how much it is wished for, and what."""
    language, _, weight = part.strip().partition(";q=")
    try:
        return float(weight or 1), language.strip()
    except ValueError:
        return None


@cache
def _catalogue(language: str) -> NullTranslations:
    if language == "en":
        return NullTranslations()
    with (_LOCALE / f"{language}.po").open("rb") as file:
        read = read_po(file, locale=language)
    compiled = BytesIO()
    write_mo(compiled, read)
    compiled.seek(0)
    return Translations(compiled)
