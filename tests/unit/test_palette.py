"""The colours of both themes can be read: contrast as WCAG 2 measures it, and no tone without a word or an icon."""

import re
from pathlib import Path

import pytest

from orderwatch.dashboard.pages import labels

ROOT = Path(__file__).parents[2]
CSS = (ROOT / "orderwatch" / "dashboard" / "static" / "orderwatch.css").read_text("utf-8")
TONES = ("ok", "info", "wait", "doubt", "bad")

#: (text, ground, least contrast): 4.5 for text, 3 for what is only a line or an area.
PAIRS = [
    ("ink", "ground", 7),
    ("ink", "sheet", 7),
    ("ink", "sunk", 7),
    ("soft", "sheet", 4.5),
    ("soft", "ground", 4.5),
    ("lead", "sheet", 4.5),
    ("lead", "ground", 4.5),
    ("on-lead", "lead", 4.5),
    ("edge", "sheet", 3),
    ("info", "sheet", 4.5),
    ("bad", "sheet", 4.5),
    ("doubt", "sheet", 4.5),
    ("wait", "sheet", 4.5),
    *((tone, f"{tone}-ground", 4.5) for tone in TONES),
    *(("ink", f"{tone}-ground", 7) for tone in TONES),
    *((plot, "sheet", 3) for plot in ("plot-ok", "plot-bad", "plot-in")),
]


def palettes() -> list[dict[str, str]]:
    """Light, dark by the system, dark by choice."""
    blocks = re.findall(r"\{([^{}]*--ground:[^{}]*)\}", CSS)
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in blocks]


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1, 2], ids=["light", "dark by the system", "dark by choice"])
@pytest.mark.parametrize(("text", "ground", "least"), PAIRS)
def test_every_pair_of_colours_can_be_read(theme: int, text: str, ground: str, least: float) -> None:
    palette = palettes()[theme]
    assert contrast(palette[text], palette[ground]) >= least


def test_the_dark_theme_is_the_same_by_choice_and_by_the_system() -> None:
    assert palettes()[1] == palettes()[2]


def test_every_tone_has_an_icon_and_a_word() -> None:
    sprite = (ROOT / "orderwatch" / "dashboard" / "templates" / "_icons.html").read_text("utf-8")
    for word in (*labels.STATES.values(), *labels.ATTEMPTS.values(), *labels.LANES.values()):
        assert word.label and word.tone in TONES
        assert f'id="i-{word.icon}"' in sprite


def test_every_icon_that_is_used_is_drawn() -> None:
    sprite = (ROOT / "orderwatch" / "dashboard" / "templates" / "_icons.html").read_text("utf-8")
    text = "".join(path.read_text("utf-8") for path in (ROOT / "orderwatch" / "dashboard" / "templates").glob("*.html"))
    named = set(re.findall(r'icon\("([\w-]+)"\)', text)) | set(labels.STEP_ICONS.values())
    assert named <= set(re.findall(r'id="i-([\w-]+)"', sprite))


def test_sides_are_logical_so_that_right_to_left_needs_no_rule() -> None:
    physical = r"(margin|padding|border|inset)-(left|right|top|bottom)\b|[^-]\b(left|right):|text-align: (left|right)"
    assert not re.search(physical, CSS)
