"""Delivery from our own stock of codes: no network, and the stock itself gives one reference its codes only once."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from agents.providers.base import (
    Ask,
    Balance,
    CatalogueItem,
    OrderFacts,
    Placed,
    PlacedAnswer,
    Profile,
    Refusal,
    Seen,
    Setup,
    StatusAnswer,
    Stock,
)
from agents.providers.wire import DELIVERS_PIN, missing, required
from streams.errors import ConfigError, InvalidOrder, StoreUnavailable

_GROUP = "code_group"
_QUANTITY = "quantity"
_LOW_STOCK = "low_stock"
_LOW_STOCK_DEFAULT = 5


class Codes:
    """The stock of one tenant. A mapping names the group of codes its package takes from.

    Option ``low_stock``: fewer codes than this left in a group raise attention (default 5, 0 switches it off).
    """

    profile: ClassVar[Profile] = Profile(
        repeat_safe=True,
        look_up=True,
        batch=50,
        quantity=True,
        absent_settle_s=0.0,
        absent_answers=1,
        absent_window_s=0.0,
        watch=False,
    )
    credentials: ClassVar[frozenset[str]] = frozenset()
    mapping_keys: ClassVar[frozenset[str]] = frozenset({_GROUP})
    options: ClassVar[frozenset[str]] = frozenset({_LOW_STOCK})
    currency: ClassVar[str | None] = None

    def __init__(self, setup: Setup) -> None:
        if setup.stock is None:
            raise ConfigError(f"integration {setup.integration_id} has no stock; expected one for provider codes")
        self._stock: Stock = setup.stock
        self._tenant_id = setup.tenant_id
        self._low_stock = int(setup.options.get(_LOW_STOCK, _LOW_STOCK_DEFAULT))

    @staticmethod
    def option_problems(options: Mapping[str, Any]) -> list[str]:
        """One line per option whose value cannot be used."""
        least = options.get(_LOW_STOCK, _LOW_STOCK_DEFAULT)
        if str(least).isdecimal():
            return []
        return [f"options.{_LOW_STOCK} is {least!r}; expected a number of codes, 0 or more"]

    @staticmethod
    def reference(tenant_id: str, order_id: str, attempt: int) -> str:
        """``codes-`` and 32 hexadecimal digits."""
        digest = hashlib.sha256("\0".join(("codes", tenant_id, order_id, str(attempt))).encode()).hexdigest()
        return f"codes-{digest[:32]}"

    def prepare(self, order: OrderFacts, mapping: Mapping[str, Any], quantity: int) -> dict[str, str]:
        if quantity < 1:
            raise InvalidOrder(f"quantity is {quantity}; expected 1 or more")
        return {_GROUP: required(mapping, _GROUP), _QUANTITY: str(quantity), DELIVERS_PIN: "1"}

    async def place(self, reference: str, wire: Mapping[str, str]) -> PlacedAnswer:
        if unfit := missing(wire, (_GROUP, _QUANTITY)):
            return unfit
        group, quantity = wire[_GROUP], int(wire[_QUANTITY])
        try:
            codes = await self._stock.take(self._tenant_id, group, reference, quantity)
        except StoreUnavailable:
            return PlacedAnswer(Placed.AMBIGUOUS, message="the stock of codes did not answer")
        if codes is None:
            message = f"fewer than {quantity} codes are left in group {group}"
            return PlacedAnswer(Placed.REJECTED, reason=Refusal.STOCK, message=message)
        left = await self._few_left(group)
        if left is None:
            return PlacedAnswer(Placed.COMPLETED, pins=tuple(codes))
        # For people who refill, not for the buyer: hence evidence, not message.
        return PlacedAnswer(
            Placed.COMPLETED, pins=tuple(codes), flags=(_LOW_STOCK,), raw=f"{left} codes are left in group {group}"
        )

    async def check(self, asks: Sequence[Ask]) -> Sequence[StatusAnswer]:
        return [await self._given(ask.reference) for ask in asks]

    async def look_up(self, asks: Sequence[Ask]) -> Sequence[StatusAnswer]:
        return await self.check(asks)

    async def balance(self) -> Balance:
        return Balance(None, "a stock of codes has no balance")

    async def catalogue(self) -> Sequence[CatalogueItem]:
        return []

    async def _few_left(self, group: str) -> int | None:
        """How many codes are left when they are fewer than option ``low_stock``, else None."""
        try:
            left = await self._stock.left(self._tenant_id, group)
        except StoreUnavailable:
            return None
        return left if left < self._low_stock else None

    async def _given(self, reference: str) -> StatusAnswer:
        try:
            codes = await self._stock.taken(reference)
        except StoreUnavailable:
            return StatusAnswer(Seen.QUERY_ERROR, message="the stock of codes did not answer")
        if codes:
            return StatusAnswer(Seen.SUCCEEDED, pins=tuple(codes))
        return StatusAnswer(Seen.NOT_FOUND, message="no code was given to this reference")
