"""The kinds of value in config.yaml: how each is read, and what to write instead of a wrong one.

Durations become seconds, rates become events per second. Text from the file needs a unit (``30s``, ``10/s``); code may
pass plain numbers.
"""

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, NoReturn

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo
from pydantic_core import PydanticCustomError

_DURATION = re.compile(r"([0-9]{1,12})(ms|s|m|h)\Z")
_RATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)/(s|m|h)\Z")
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_YEAR_MS = 366 * 24 * 3_600_000
_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}\Z")
_NUMBER = re.compile(r"[+-]?[0-9]{1,15}(\.[0-9]{1,15})?\Z")


@dataclass(frozen=True)
class Kind:
    """How the reference calls a type."""

    text: str


def _wrong(expected: str) -> NoReturn:
    raise PydanticCustomError("expected", "{expected}", {"expected": expected})


def _from_code(value: Any, info: ValidationInfo) -> bool:
    """Numbers without a unit are for code; the file reader validates with a context."""
    return info.context is None and isinstance(value, int | float) and not isinstance(value, bool)


def _seconds(value: Any, info: ValidationInfo) -> float:
    if _from_code(value, info):
        return float(value)
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is None:
        _wrong("a duration like 30s (ms, s, m or h)")
    ms = int(match[1]) * _UNIT_MS[match[2]]
    if ms > _YEAR_MS:
        _wrong("a duration of at most a year (8784h)")
    return ms / 1000


def _positive_seconds(value: Any, info: ValidationInfo) -> float:
    seconds = _seconds(value, info)
    return seconds if seconds > 0 else _wrong("a duration above 0 like 30s")


def _rate(value: Any, info: ValidationInfo) -> float:
    if _from_code(value, info):
        return float(value)
    match = _RATE.match(value) if isinstance(value, str) else None
    rate = float(match[1]) * 1000 / _UNIT_MS[match[2]] if match else 0.0
    return rate if rate > 0 else _wrong("a rate above 0 like 10/s or 600/m")


def _whole(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.match(r"[+-]?[0-9]{1,15}\Z", value):
        return int(value)
    _wrong("a whole number")


def _decimal(value: Any) -> Decimal:
    try:
        if isinstance(value, Decimal):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return Decimal(str(value))
        if isinstance(value, str) and _NUMBER.match(value):
            return Decimal(value)
    except InvalidOperation:
        pass
    _wrong("a number")


def _number(value: Any) -> float:
    return float(_decimal(value))


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return bool(value == "true")
    _wrong("true or false")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _wrong("text (put it in quotes)")


def _name(value: Any) -> str:
    text = _text(value)
    return text if text.strip() else _wrong("text that is not empty")


def _id(value: Any) -> str:
    text = _text(value)
    return text if _ID.match(text) else _wrong("1 to 64 characters of A-Z a-z 0-9 . _ : -")


def _package_id(value: Any) -> str:
    text = _name(value)
    return text if len(text) <= 200 else _wrong("at most 200 characters")


def _pattern(value: Any) -> str:
    text = _name(value)
    try:
        re.compile(text)
    except re.error as error:
        _wrong(f"a regular expression ({error})")
    return text


def _currency(value: Any) -> str:
    text = _text(value)
    return text if re.match(r"[A-Z]{3}\Z", text) else _wrong("an ISO currency like TRY")


def _prefix(value: Any) -> str:
    text = _text(value)
    return text if re.match(r"[A-Za-z0-9._-]{0,100}\Z", text) else _wrong("letters, digits, dot, dash and underscore")


def _secret(value: Any) -> Any:
    return value if isinstance(value, SecretStr) else _name(value)


Seconds = Annotated[float, BeforeValidator(_seconds), Kind("duration")]
PositiveSeconds = Annotated[float, BeforeValidator(_positive_seconds), Kind("duration")]
Rate = Annotated[float, BeforeValidator(_rate), Kind("rate")]
Whole = Annotated[int, BeforeValidator(_whole), Kind("whole number")]
Number = Annotated[float, BeforeValidator(_number), Kind("number")]
MoneyAmount = Annotated[Decimal, BeforeValidator(_decimal), Field(ge=0), Kind("decimal number")]
Flag = Annotated[bool, BeforeValidator(_flag), Kind("true or false")]
Text = Annotated[str, BeforeValidator(_text), Kind("text")]
Name = Annotated[str, BeforeValidator(_name), Kind("text")]
Pattern = Annotated[str, BeforeValidator(_pattern), Kind("regular expression")]
Id = Annotated[str, BeforeValidator(_id), Kind("id")]
PackageId = Annotated[str, BeforeValidator(_package_id), Kind("text")]
Currency = Annotated[str, BeforeValidator(_currency), Kind("ISO currency")]
Prefix = Annotated[str, BeforeValidator(_prefix), Kind("text")]
Secret = Annotated[SecretStr, BeforeValidator(_secret), Kind("secret text")]


def duration_text(seconds: float) -> str:
    """The shortest form the file accepts: 3600.0 -> ``1h``, 0.5 -> ``500ms``."""
    ms = round(seconds * 1000)
    unit = next(unit for unit in ("h", "m", "s", "ms") if ms and ms % _UNIT_MS[unit] == 0) if ms else "s"
    return f"{ms // _UNIT_MS[unit]}{unit}"


def tier_name(seconds: float) -> str:
    """Logical topic of a delay, without the configured prefix: whole seconds, else milliseconds."""
    ms = round(seconds * 1000)
    return f"orders.retry.{ms // 1000}s" if ms % 1000 == 0 else f"orders.retry.{ms}ms"
