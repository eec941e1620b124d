"""What can be scripted: accounts, catalogues, lives of orders, faults; read strictly, explained when wrong.

The same structs describe a scenario file and the bodies of the control API. Durations are in milliseconds, named so.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import yaml

from orderwatch.simulator.faults import Fault

T = TypeVar("T")

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}\Z", description="1-64 of [A-Za-z0-9._-]")]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
Currency = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z")]
Price = Annotated[Decimal, msgspec.Meta(description="an amount of the account's currency")]
Milliseconds = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]


class ScenarioError(ValueError):
    """A scenario or a control request is wrong: the text names the field, the value and what was expected."""


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An unknown key is a mistake."""


class Constant(Strict, frozen=True, kw_only=True, tag="constant", tag_field="kind"):
    """Every answer takes the same time."""

    ms: Milliseconds = 0


class Uniform(Strict, frozen=True, kw_only=True, tag="uniform", tag_field="kind"):
    """Answer times spread evenly between two bounds."""

    low_ms: Milliseconds
    high_ms: Milliseconds

    def __post_init__(self) -> None:
        if self.high_ms < self.low_ms:
            raise ValueError(f"high_ms is {self.high_ms:g}; expected at least low_ms, {self.low_ms:g}")


class Lognormal(Strict, frozen=True, kw_only=True, tag="lognormal", tag_field="kind"):
    """Answer times with a long tail; ``sigma`` is the deviation of the logarithm, ``max_ms`` cuts the tail."""

    median_ms: Annotated[float, msgspec.Meta(gt=0)]
    sigma: Annotated[float, msgspec.Meta(ge=0, le=4)] = 0.5
    max_ms: Milliseconds = 60_000


Latency = Constant | Uniform | Lognormal


class Life(Strict, frozen=True, kw_only=True):
    """What becomes of an order after it was bought.

    It ends at the ``after_checks``-th status answer about it (0: in the placement's own answer, which only zdk can
    say) and no earlier than ``after_ms`` after the purchase; with ``after_ms`` alone the number of checks does not
    matter, and with neither the first check shows the end. ``extra_states`` are shown verbatim, one per check,
    before anything else; ``final_word`` replaces the provider's word for the end. ``pin`` is true for a code derived
    from the reference, or the code itself. A success is called off after it was shown ``reversal_after_checks``
    times, or ``reversal_after_ms`` after the purchase; before that ``relapse_checks`` answers say that it is in work
    again.
    """

    final: Literal["success", "fail", "pending"] = "success"
    after_checks: Count | None = None
    after_ms: Milliseconds | None = None
    extra_states: tuple[str, ...] = ()
    final_word: Text | None = None
    pin: bool | Text = True
    pin_after_checks: Count = 0  # so many answers say success without its PIN
    text: str | None = None  # None: the provider's usual sentence
    reversal_after_checks: Positive | None = None
    reversal_after_ms: Milliseconds | None = None
    relapse_checks: Count = 0
    latency: Latency | None = None  # of placements and znet look-ups; None: the account's

    def checks_needed(self) -> int:
        """Status answers until the end may be shown, as far as counting goes."""
        if self.after_checks is None:
            needed = 0 if self.after_ms is not None else 1
        else:
            needed = self.after_checks
        return max(needed, len(self.extra_states) + 1) if self.extra_states else needed


class Script(Life, frozen=True, kw_only=True):
    """A life for the orders of one player or one package; a player wins over a package, an account over none."""

    account: Name | None = None
    package: Text | None = None
    player: Text | None = None

    def __post_init__(self) -> None:
        if (self.package is None) == (self.player is None):
            raise ValueError("a life names either a package or a player; expected exactly one of them")


class ZnetPackage(Strict, frozen=True, kw_only=True):
    """One row of pin_listesi. ``id`` is the row id; an order names ``oyun`` (oyun_bilgi_id) and ``kupur``."""

    id: Text
    name: Text
    price: Price
    oyun: Text
    kupur: Text
    oyun_id: Text = "1"
    oyun_adi: str = "PUBG"
    aciklama: str = ""
    available: bool = True  # false: listed, and refused as out of stock


class QuantityRange(Strict, frozen=True, kw_only=True):
    """Inclusive bounds, sent as strings."""

    min: Positive
    max: Positive


class ZdkPackage(Strict, frozen=True, kw_only=True):
    """One row of /products. ``params`` are the query keys an order must bring; the first one names the player."""

    id: Text
    name: Text
    price: Price
    params: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1)] = ("playerId",)
    params_shown: tuple[str, ...] | None = None  # labels for people instead of the keys
    qty_values: QuantityRange | tuple[Text, ...] | None = None
    category: Text | None = None
    available: bool = True


class ZnetSwitches(Strict, frozen=True, kw_only=True):
    """How this znet shop behaves where nobody documented it."""

    repeat: Literal["reject-4", "ok-8", "accept-again", "echo-first"] = "reject-4"
    unknown_reference: Literal["empty", "text"] = "text"
    locked_answer: Literal["code-8", "empty"] = "code-8"
    comma_decimals: bool = False
    encoding: Literal["utf-8", "windows-1254"] = "utf-8"
    declare_charset: bool = False
    no_pin: str = " "  # what stands in the PIN field when there is none
    reason_in_pin: bool = False  # a cancelled order has its reason in the PIN field and no text
    phone_required: bool = False


class ZdkSwitches(Strict, frozen=True, kw_only=True):
    """How this ZDK shop behaves where the shops differ."""

    repeat: Literal["idempotent", "accept-again"] = "idempotent"
    envelope: Literal["nested", "repeated", "flat"] = "nested"
    error_style: Literal["status", "code", "msg", "success"] = "status"
    http_errors: bool = True  # 120/121 with 401, 122/123 with 403, 130 with 503, 429 with 429; else all 200
    new_order: Literal["any", "get", "post"] = "any"
    list_syntax: Literal["any", "bracketed", "quoted", "bare"] = "any"
    check_limit: Positive = 50
    check_array: bool = False  # a bare array instead of status + data
    uuid_in_rows: bool = True  # check rows carry order_uuid
    uuid_required: bool = True
    pin_in: Literal["replay_api", "pin"] = "replay_api"


class ZnetCredentials(Strict, frozen=True, kw_only=True):
    kod: Text
    sifre: Text


class ZdkCredentials(Strict, frozen=True, kw_only=True):
    token: Text


class AccountBase(Strict, frozen=True, kw_only=True):
    """One dealer account. ``permission`` is the API switch of the panel, ``ip_allowed`` the caller's address."""

    id: Name
    currency: Currency = "TRY"
    balance: Price = Decimal(10_000)
    debt: Price | None = None
    permission: bool = True
    ip_allowed: bool = True
    latency: Latency = msgspec.field(default_factory=Constant)
    life: Life = msgspec.field(default_factory=Life)
    faults: tuple[Fault, ...] = ()


class ZnetAccount(AccountBase, frozen=True, kw_only=True, tag="znet", tag_field="kind"):
    credentials: ZnetCredentials
    catalogue: tuple[ZnetPackage, ...] = ()
    switches: ZnetSwitches = msgspec.field(default_factory=ZnetSwitches)

    def __post_init__(self) -> None:
        refuse_doubles("catalogue id", [row.id for row in self.catalogue])
        refuse_doubles("pair of oyun and kupur", [f"{row.oyun}/{row.kupur}" for row in self.catalogue])


class ZdkAccount(AccountBase, frozen=True, kw_only=True, tag="zdk", tag_field="kind"):
    credentials: ZdkCredentials
    catalogue: tuple[ZdkPackage, ...] = ()
    switches: ZdkSwitches = msgspec.field(default_factory=ZdkSwitches)

    def __post_init__(self) -> None:
        refuse_doubles("catalogue id", [row.id for row in self.catalogue])


AccountSpec = ZnetAccount | ZdkAccount


class Scenario(Strict, frozen=True, kw_only=True):
    """Everything a simulator starts with."""

    accounts: tuple[AccountSpec, ...] = ()
    lives: tuple[Script, ...] = ()

    def __post_init__(self) -> None:
        ids = [account.id for account in self.accounts]
        refuse_doubles("account id", ids)
        for script in self.lives:
            if script.account is not None and script.account not in ids:
                raise ValueError(f"a life names account {script.account!r}; expected one of {', '.join(ids) or 'none'}")


def refuse_doubles(what: str, values: list[str]) -> None:
    """Raises ``ValueError`` naming the first value that occurs twice."""
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{what} {value!r} occurs twice; expected each once")
        seen.add(value)


def read(data: Any, kind: type[T], where: str) -> T:
    """Plain data as the given struct; ``ScenarioError`` begins with ``where`` and the path of the field."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise ScenarioError(f"{where}: {explain(str(error), data)}") from error


def load(path: Path) -> Scenario:
    """A scenario file. Raises ``ScenarioError``, also for a file that cannot be read."""
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ScenarioError(f"{path.name}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path.name}: is not YAML: {' '.join(str(error).split())}") from error
    return read(data, Scenario, path.name)


def merged(base: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7396): objects are merged, null removes, everything else replaces.

    An object of another ``kind`` replaces too: the fields of one latency are no fields of another.
    """
    if not isinstance(patch, Mapping):
        return patch
    result = dict(base) if isinstance(base, Mapping) and patch.get("kind", base.get("kind")) == base.get("kind") else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def explain(message: str, data: Any) -> str:
    """msgspec's complaint with the field in front and the offending value behind; never a credential."""
    text, _, path = message.partition(" - at `")
    path = path.rstrip("`").removeprefix("$").removeprefix(".")
    value = None if "credentials" in path else value_at(path, data)
    shown = f" (found {value!r})" if isinstance(value, str | int | float) else ""
    return f"{path}: {text}{shown}" if path else f"{text}{shown}"


def value_at(path: str, data: Any) -> Any:
    """The value a path such as ``accounts[0].balance`` leads to; None when it leads nowhere."""
    for key, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path):
        try:
            data = data[int(index)] if index else data[key]
        except (KeyError, IndexError, TypeError):
            return None
    return data
