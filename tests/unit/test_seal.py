"""PINs: sealed by the newest key, opened by any, printed by none."""

import pytest

from streams.errors import ConfigError, EventError
from streams.seal import VARIABLE, Sealer, mask, new_key


def test_a_sealed_pin_opens_again_and_does_not_show_itself() -> None:
    sealer = Sealer.from_environ({VARIABLE: new_key()})

    sealed = sealer.seal("ÇĞ-1234-كود")

    assert "1234" not in sealed
    assert sealer.open(sealed) == "ÇĞ-1234-كود"
    assert sealer.seal("1") != sealer.seal("1")


def test_an_old_key_still_opens_and_the_newest_one_seals() -> None:
    old, new = new_key(), new_key()
    sealed_before = Sealer([old]).seal("7777")
    both = Sealer.from_environ({VARIABLE: f" {new} , {old} "})

    assert both.open(sealed_before) == "7777"
    assert Sealer([new]).open(both.seal("8888")) == "8888"
    assert Sealer([new]).open(both.rotate(sealed_before)) == "7777"


def test_a_pin_sealed_elsewhere_is_an_event_error_without_the_pin() -> None:
    sealed = Sealer([new_key()]).seal("424242")

    for way in (Sealer([new_key()]).open, Sealer([new_key()]).rotate):
        with pytest.raises(EventError) as raised:
            way(sealed)
        assert raised.value.reason == "sealed_elsewhere"
        assert sealed not in str(raised.value)
    with pytest.raises(EventError):
        Sealer([new_key()]).open("not a token, ğ")


@pytest.mark.parametrize(
    "environ", [{}, {VARIABLE: ""}, {VARIABLE: " , "}, {VARIABLE: "short-secret"}, {VARIABLE: "ğ" * 44}]
)
def test_a_missing_or_wrong_key_names_the_variable_and_not_the_key(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=VARIABLE) as raised:
        Sealer.from_environ(environ)
    assert "short-secret" not in str(raised.value)


def test_the_second_key_is_checked_too() -> None:
    with pytest.raises(ConfigError, match="key 2 of 2"):
        Sealer.from_environ({VARIABLE: f"{new_key()},half-a-key"})


def test_neither_repr_nor_mask_tells_anything() -> None:
    key = new_key()

    assert key not in repr(Sealer([key]))
    assert mask("12345678") == mask("1")
    assert mask("") == ""
