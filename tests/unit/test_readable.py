"""What the commands show of an event that somebody wrote wrongly."""

import json
from typing import Any

import pytest

from agents.diagnosis.redaction import readable

PLAYER = 5551234567890


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("user_identifier", PLAYER),
        ("user_identifier", [str(PLAYER)]),
        ("userIdentifier", str(PLAYER)),
        ("quantity", str(PLAYER)),
        ("params", [PLAYER]),
        ("params", {"zone": PLAYER}),
        ("order_id", f"{PLAYER}/1"),
        ("sell_price", {"amount": "1", "currency": str(PLAYER)}),
        ("created_at", str(PLAYER)),
    ],
)
def test_a_player_in_the_wrong_place_or_of_the_wrong_type_is_not_shown(field: str, wrong: Any) -> None:
    shown = readable(json.dumps({"package_id": "sixty", "quantity": 2, field: wrong}).encode())

    assert isinstance(shown, dict) and shown["package_id"] == "sixty"
    assert str(PLAYER) not in json.dumps(shown)
    assert field in shown and "***" in json.dumps(shown[field])


def test_an_event_in_good_order_is_shown_without_the_customer() -> None:
    said = {
        "order_id": "o-1",
        "tenant_id": "shop",
        "quantity": 2,
        "created_at": "2026-01-01T00:00:00Z",
        "sell_price": {"amount": "1.50", "currency": "TRY"},
        "extra_field": None,
    }
    assert readable(json.dumps({**said, "pins": ["a", "b"]}).encode()) == {**said, "pins": ["sealed (2)"]}
