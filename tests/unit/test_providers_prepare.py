"""From an order and its mapping to wire parameters; nothing is guessed, what is missing is named."""

import pytest

from agents.providers.base import OrderFacts, Setup
from agents.providers.znet.adapter import Znet
from streams.errors import InvalidOrder

ORDER = OrderFacts("demo", "o-1", "pubg-60", 1, "pl4yer", "EU", "5550001122", {"zone": "7"})
NO_PHONE = OrderFacts("demo", "o-1", "pubg-60", 1, "pl4yer")
MAPPING = {"oyun": 1, "kupur": "UC60"}
BASE = {"oyun": "1", "kupur": "UC60", "oyuncu_bilgi": "pl4yer"}


def znet(**options):
    return Znet(Setup("z", "demo", "TRY", None, str, None, {"kod": "k", "sifre": "s"}, options))


@pytest.mark.parametrize(
    ("order", "options", "mapping", "wire"),
    [
        (ORDER, {}, {}, BASE | {"musteri_tel": "5550001122"}),
        (NO_PHONE, {}, {}, BASE),
        (NO_PHONE, {"phone_placeholder": "1111111111"}, {}, BASE | {"musteri_tel": "1111111111"}),
        (NO_PHONE, {}, {"delivers_pin": True}, BASE | {"_delivers_pin": "1"}),
        (
            ORDER,
            {},
            {"player": "{extra_field} {user_identifier}"},
            BASE | {"oyuncu_bilgi": "EU pl4yer", "musteri_tel": "5550001122"},
        ),
        (ORDER, {}, {"params": {"musteri_tel": "{params.zone}-{order_id}"}}, BASE | {"musteri_tel": "7-o-1"}),
    ],
)
def test_a_placement_says_what_the_mapping_says(order, options, mapping, wire):
    assert znet(**options).prepare(order, MAPPING | mapping, 1) == wire


@pytest.mark.parametrize(
    ("order", "mapping", "quantity", "words"),
    [
        (ORDER, {"kupur": None}, 1, "mapping.kupur is missing"),
        (ORDER, {"oyun": True}, 1, "mapping.oyun is missing"),
        (OrderFacts("demo", "o-1", "p", 1, "  "), {}, 1, "oyuncu_bilgi: the order has no 'user_identifier'"),
        (NO_PHONE, {"player": "{extra_field}"}, 1, "oyuncu_bilgi: the order has no 'extra_field'"),
        (ORDER, {"params": {"sifre": "x"}}, 1, "mapping.params.sifre is not allowed"),
        (ORDER, {"params": {"_delivers_pin": "1"}}, 1, "mapping.params._delivers_pin is not allowed"),
        (ORDER, {"params": {"x": " "}}, 1, "x is empty"),
        (ORDER, {}, 2, "quantity is 2; expected 1"),
    ],
)
def test_an_order_that_does_not_fit_names_the_field(order, mapping, quantity, words):
    with pytest.raises(InvalidOrder) as caught:
        znet().prepare(order, MAPPING | mapping, quantity)
    assert words in str(caught.value) and "pl4yer" not in str(caught.value)
