"""From the bytes of an answer to text that is safe to keep: decoding, PINs, evidence without secrets."""

import codecs
import html
import json
import re
import string
from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

from agents.providers.words import is_no_code

MASK = "***"
RAW_LIMIT = 2000
MESSAGE_LIMIT = 500
_MOST_WORK = 50_000_000  # letters times secrets: some tenths of a second

#: Character sets a shop may declare; Python knows more codecs, and some of them are not character sets.
_CHARSETS = frozenset(
    {
        "utf-8",
        "ascii",
        "iso8859-1",
        "iso8859-9",
        "cp1252",
        "cp1254",
        "cp1256",
        "iso8859-6",
        "utf-16",
        "utf-16-le",
        "utf-16-be",
    }
)
_BLANK = " \t\r\n\f\v\u00a0"
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")
_HEX = re.compile(r"%[0-9A-F]{2}")
_FOLD = str.maketrans("İIıÜüŞşĞğÇçÖöÂâÎîÛû", "iiiuussggccooaaiiuu")
_SCHEME = f"{string.ascii_letters}{string.digits}+.-"


def decode(body: bytes, charset: str | None = None) -> str:
    """Text of a body: strict UTF-8, else the declared charset, else windows-1254. One BOM and blanks at both ends are
    dropped, and so are characters no database column takes. Never raises.

    What is valid UTF-8 is UTF-8: web servers declare a default charset that the program behind them does not know.
    Latin 1 is read as windows-1254, its Turkish superset.
    """
    if body.startswith(codecs.BOM_UTF8):
        body, charset = body[3:], None
    declared = _known(charset)
    names = (declared, "utf-8") if declared and declared.startswith("utf-16") else ("utf-8", declared)
    for name in names:
        if name:
            try:
                return clean(body.decode(name))
            except UnicodeDecodeError:
                continue
    return clean(body.decode("cp1254", errors="replace"))


def clean(text: str) -> str:
    """Without one BOM, control characters and lone surrogates, and trimmed (NBSP counts as blank)."""
    return _CONTROL.sub("", text.removeprefix("\ufeff")).strip(_BLANK)


def is_html(text: str) -> bool:
    """Whether this is a page (or a PHP warning before an answer), not an answer."""
    return text.lstrip(_BLANK).startswith("<")


def fold(text: str) -> str:
    """Lower case without Turkish marks, for finding words: ``KÜPÜR`` -> ``kupur``."""
    return text.translate(_FOLD).lower()


def read_json(text: str) -> Any:
    """The document, with decimals exact and nested at most 40 deep; raises ``ValueError`` and nothing else."""
    try:
        document = json.loads(
            text, parse_float=Decimal, parse_constant=_no_constant, object_pairs_hook=_without_duplicates
        )
    except (RecursionError, ArithmeticError) as error:  # 100,000 brackets, or an exponent no Decimal has
        raise ValueError("not a readable document") from error
    _refuse_deep(document, 40)
    return document


def read_pin(value: object) -> str | None:
    """The PIN in a field, whole; None for nothing, and for what stands where a code will be."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    text = clean(str(value))
    return None if is_no_code(text) else text


#: Letters and digits in groups, or a long run of both: what can be a code in a text where none belongs.
_CODE_LIKE = re.compile(
    r"(?<![\w-])(?=[A-Za-z0-9-]*\d|[A-Z0-9]{3,}-[A-Z0-9]{3,}-)(?:[A-Za-z0-9]{3,}(?:-[A-Za-z0-9]{3,})+|[A-Z0-9]{10,})(?![\w-])"
)


def code_like(text: str, known: Iterable[str] = ()) -> list[str]:
    """What in ``text`` could be a gift code, the values in ``known`` (references, ids) left out."""
    out = {value.lower() for value in known}
    return [found for found in _CODE_LIKE.findall(text) if found.lower() not in out]


def one_line(text: str, secrets: Iterable[str] = ()) -> str:
    """A provider's own words for people: one line, no URL, no ``secrets``, at most 500 characters."""
    words = hide(clean(text), secrets).split()
    return " ".join(_without_url(word) for word in words)[:MESSAGE_LIMIT]


def _without_url(word: str) -> str:
    """A pattern for this would need minutes for some long words, and a provider chooses the word."""
    before, scheme, rest = word.partition("://")
    if scheme and rest:
        kept = before.rstrip(_SCHEME)
        return f"{kept}[url]" if kept != before else word
    path, _, query = word.partition("?")
    return "[url]" if path and "=" in query else word


def hide(text: str, secrets: Iterable[str]) -> str:
    """``text`` with every secret masked, in plain, percent-encoded and HTML-escaped form; nothing of it where there is
    more to mask than anybody can wait for."""
    distinct = sorted(set(filter(None, secrets)), key=len, reverse=True)
    if len(distinct) * len(text) > _MOST_WORK:
        return MASK
    for secret in distinct:
        for form in _forms(secret):
            text = text.replace(form, MASK)
    return text


@lru_cache(maxsize=1024)
def _forms(secret: str) -> tuple[str, ...]:
    """The ways in which a text may be written, each once."""
    in_json, in_url = json.dumps(secret)[1:-1], quote(secret, safe="")
    forms = (
        secret,
        in_url,
        _HEX.sub(_lower, in_url),
        quote_plus(secret),
        html.escape(secret),
        in_json,
        in_json.replace("/", "\\/"),
    )
    return tuple(dict.fromkeys(forms))


def evidence(text: str, secrets: Iterable[str] = ()) -> str:
    """The redacted body to keep with an attempt."""
    return hide(_CONTROL.sub("", text), secrets)[:RAW_LIMIT]


def _lower(found: re.Match[str]) -> str:
    return found[0].lower()


def _known(charset: str | None) -> str | None:
    try:
        name = codecs.lookup(charset or "").name
    except (LookupError, ValueError):
        return None
    if name in ("iso8859-1", "cp1252", "ascii"):
        return "cp1254"
    return name if name in _CHARSETS else None


def _refuse_deep(value: Any, levels: int) -> None:
    if not levels:
        raise ValueError("nested too deep")
    if isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            _refuse_deep(inner, levels - 1)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two values under one key contradict each other: which of them a reader takes is chance."""
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key stands twice")
    return document


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
