"""Every form of every event ever sent is still read, and the same fact still has the same id."""

import json
from pathlib import Path
from typing import Any

import pytest

from streams import events

SAMPLES = sorted((Path(__file__).parent / "samples").glob("*.json"))
#: Written down, not computed: a change here makes every consumer see every fact a second time.
IDS = {
    "attention": "d773e7923a01df53cc11fcecc0138102",
    "check": "5e8c1682af76b8ecec9c50a5781fce5e",
    "command": "8a3d4aa70701fe50b7fe296775c9902f",
    "created-plain": "677774d7aa1d19eb816fd3a9dc17c2fb",
    "created": "f3c7be8e2bc98158bf87fabc24101c8c",
    "referenced": "7a58594fb02e0815fac0191610d6e0f1",
    "status-changed": "37346ebd4ea5cda9cc9d7ece8525802d",
}
FINGERPRINT = "16eb255d49574fb5e65980bfe6c5203c25335f88e656478cfaf8cd1020ad4845"


def read(path: Path) -> tuple[dict[str, Any], events.Event]:
    sample = json.loads(path.read_text("utf-8"))
    kind = getattr(events, sample["kind"])
    return sample, events.decode(kind, json.dumps(sample["value"]).encode())


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_is_read_whole_and_its_unknown_field_is_ignored(path: Path) -> None:
    sample, event = read(path)
    known = {name: value for name, value in sample["value"].items() if name in event.__struct_fields__}

    assert known.keys() != sample["value"].keys(), "a sample carries a field we do not know"
    if path.stem != "created-plain":
        assert json.loads(events.encode(event)) == known
        assert known.keys() == set(event.__struct_fields__), "a sample carries every field"


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_an_event_survives_its_own_encoding(path: Path) -> None:
    _, event = read(path)

    assert events.decode(type(event), events.encode(event)) == event


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_id_of_a_fact_is_what_it_always_was(path: Path) -> None:
    _, event = read(path)

    assert events.event_id(event) == IDS[path.stem]


@pytest.mark.parametrize("path", [path for path in SAMPLES if path.stem != "created-plain"], ids=lambda path: path.stem)
def test_the_envelope_of_a_fact_is_what_it_always_was(path: Path) -> None:
    sample, event = read(path)
    at = getattr(event, next(name for name in event.__struct_fields__ if name.endswith("_at") or name == "since"))

    made = {name: value.decode() for name, value in events.headers(event, at=at)}

    assert made == sample["headers"]


def test_every_kind_of_event_has_a_sample() -> None:
    kinds = {json.loads(path.read_text("utf-8"))["kind"] for path in SAMPLES}

    assert kinds == {kind.__name__ for kind in events.EVENTS}
    assert IDS.keys() == {path.stem for path in SAMPLES}


def test_the_fingerprint_of_an_order_is_what_it_always_was() -> None:
    [path] = [path for path in SAMPLES if path.stem == "created"]
    _, created = read(path)

    assert isinstance(created, events.Created)
    assert created.fingerprint() == FINGERPRINT
