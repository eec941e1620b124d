"""Reading amounts as providers write them: Turkish and English marks, currency signs, numbers and text."""

import re
from decimal import Decimal

_NOISE = re.compile(r"(?i)[\s\u00a0$€₺]|TRY|TL|USD|EUR")
_PLAIN = re.compile(r"[+-]?(?:\d{1,15}(?:\.\d{1,30})?|\.\d{1,30})", re.ASCII)
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d{1,30})?", re.ASCII)


def read_amount(value: object) -> Decimal | None:
    """The decimal a provider means, or None when this is not money. Never raises.

    When both marks occur the later one is the decimal mark; a single comma is the decimal mark; a mark that occurs
    more than once groups thousands. Trailing zeros are dropped.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, Decimal)):
        return _tidy(Decimal(value))
    if not isinstance(value, str) or len(value) > 80:
        return None
    text = _NOISE.sub("", value)
    commas, dots = text.count(","), text.count(".")
    if text.rfind(",") > text.rfind(".") and (dots or commas == 1):
        text = text.translate({ord(","): ".", ord("."): ","})  # Turkish marks, so that only English ones remain
    elif dots > 1 and not commas:
        text = text.replace(".", ",")
    if _GROUPED.fullmatch(text):
        text = text.replace(",", "")
    return _tidy(Decimal(text)) if _PLAIN.fullmatch(text) else None


#: No package and no account is worth more: a larger number is an error of the provider's program.
MOST = Decimal(10) ** 9


def read_cost(value: object) -> tuple[Decimal | None, tuple[str, ...]]:
    """A price and its flags: a negative or absurd one is None with flag ``odd_cost``."""
    amount = read_amount(value)
    if amount is not None and not 0 <= amount < MOST:
        return None, ("odd_cost",)
    return amount, ()


def _tidy(amount: Decimal) -> Decimal | None:
    if not amount.is_finite():
        return None
    if not amount:
        return Decimal(0)
    if not -30 <= amount.adjusted() < 15:  # before any arithmetic: 1E+999999999 is valid JSON
        return None
    whole = amount == amount.to_integral_value()
    return amount.quantize(Decimal(1)) if whole else amount.normalize()
