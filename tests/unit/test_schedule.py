"""When to ask again: delays grow, stop growing, and are always one of the tiers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.domain.schedule import tier_for, tier_within
from tests.fakes import SCHEDULE


@pytest.mark.parametrize(("asked", "delay_s"), [(0, 30), (1, 30), (2, 60), (3, 120), (5, 480), (6, 600), (60, 600)])
def test_the_delay_doubles_up_to_its_maximum(asked: int, delay_s: float) -> None:
    assert SCHEDULE.backoff_s(asked) == delay_s


@pytest.mark.parametrize(
    ("wish_s", "delay_s"),
    [
        (None, 30),  # the provider wishes nothing
        (1, 30),  # never sooner than our own delay
        (30, 30),
        (31, 60),  # rounded up to a tier
        (601, 3600),
        (99999, 3600),  # longer than every tier: the longest one
    ],
)
def test_a_providers_wish_is_rounded_up_to_a_tier(wish_s: float | None, delay_s: float) -> None:
    assert SCHEDULE.retry_after_s(wish_s, 30.0) == delay_s


@given(st.lists(st.floats(0.1, 9999), min_size=1).map(sorted), st.floats(0, 9999))
def test_a_tier_is_long_enough_unless_none_is(tiers: list[float], seconds: float) -> None:
    tier = tier_for(tiers, seconds)
    assert tier in tiers
    assert tier >= seconds - 0.001 or tier == max(tiers)
    assert not any(seconds <= other < tier for other in tiers)


@pytest.mark.parametrize(
    ("seconds", "tier"),
    [
        (0.0, 5.0),  # shorter than all: the shortest
        (5.0, 5.0),
        (29.9, 5.0),  # never past it
        (30.0, 30.0),
        (900.0, 600.0),
    ],
)
def test_a_turn_is_waited_for_in_the_longest_tier_that_does_not_pass_it(seconds: float, tier: float) -> None:
    assert tier_within((5.0, 30.0, 600.0), seconds) == tier
