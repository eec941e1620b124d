from pathlib import Path

from streams.config.models import Config
from streams.config.reference import markdown, rows

COMMITTED = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_committed_reference_is_the_generated_one() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == markdown(), "orderwatch config reference > docs/configuration.md"


def test_every_key_has_a_type_and_a_meaning() -> None:
    keys = [row.key for row in rows()]
    assert len(keys) == len(set(keys))
    assert {key.partition(".")[0].removesuffix("[]") for key in keys} == set(Config.model_fields)
    for row in rows():
        assert row.type, row
        assert row.meaning not in ("", "None"), row
