"""The AsyncAPI document: well formed, complete, and the one that is committed."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from streams import asyncapi, events, topics
from streams.config.loader import Config

COMMITTED = Path(__file__).parents[2] / "docs" / "asyncapi.yaml"


@pytest.fixture(scope="module")
def config() -> Config:
    return Config(kafka={"bootstrap_servers": "embedded"}, database={"url": "embedded"})


@pytest.fixture(scope="module")
def document(config: Config) -> dict[str, Any]:
    return asyncapi.document(config)


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from nodes(value)
    if isinstance(node, list):
        for value in node:
            yield from nodes(value)


def at(document: dict[str, Any], reference: str) -> Any:
    assert reference.startswith("#/")
    node: Any = document
    for part in reference[2:].split("/"):
        node = node[part]
    return node


def test_the_committed_document_is_the_one_the_code_makes(document: dict[str, Any]) -> None:
    assert COMMITTED.read_text("utf-8") == asyncapi.text(document), "write asyncapi.text of the defaults there"


def test_it_reads_back_from_yaml_as_it_was(document: dict[str, Any]) -> None:
    assert yaml.safe_load(asyncapi.text(document)) == document


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = [node["$ref"] for node in nodes(document) if "$ref" in node]

    assert len(references) > 20
    for reference in references:
        assert isinstance(at(document, reference), dict), reference


def test_it_has_the_shape_of_asyncapi_3(document: dict[str, Any]) -> None:
    assert document["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= document["info"].keys()
    for channel in document["channels"].values():
        assert channel["address"]
        assert channel["messages"]
        assert set(re.findall(r"\{(\w+)\}", channel["address"])) == channel.get("parameters", {}).keys()
    for operation in document["operations"].values():
        assert operation["action"] in ("send", "receive")
        channel = operation["channel"]["$ref"]
        assert at(document, channel) in document["channels"].values()
        assert operation["messages"]
        for message in operation["messages"]:  # an operation may only name messages of its own channel
            assert message["$ref"].startswith(f"{channel}/messages/")
    for name in (
        *document["channels"],
        *document["operations"],
        *document["components"]["messages"],
        *document["components"]["schemas"],
    ):
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name)


def test_every_topic_and_every_event_is_in_it(config: Config, document: dict[str, Any]) -> None:
    addresses = {channel["address"] for channel in document["channels"].values()}
    tiers = document["channels"]["retry"]["parameters"]["delay"]["enum"]
    addresses |= {f"{topics.RETRY}{tier}" for tier in tiers}

    assert addresses - {"orders.retry.{delay}"} == {spec.name for spec in topics.specs(config)} - {topics.LEDGER}
    assert {kind.__name__ for kind in events.EVENTS} <= document["components"]["messages"].keys()
    for kind in events.EVENTS:
        properties = document["components"]["schemas"][kind.__name__]["properties"]
        assert properties.keys() == set(kind.__struct_fields__)


def test_patterns_are_ecmascript_and_instants_say_so(document: dict[str, Any]) -> None:
    patterns = [node["pattern"] for node in nodes(document) if isinstance(node.get("pattern"), str)]

    assert patterns
    assert not [pattern for pattern in patterns if r"\Z" in pattern]
    assert document["components"]["schemas"]["Created"]["properties"]["created_at"]["format"] == "date-time"


def test_a_prefix_is_part_of_every_address(config: Config) -> None:
    prefixed = config.model_copy(update={"kafka": config.kafka.model_copy(update={"topic_prefix": "eu1."})})

    made = asyncapi.document(prefixed)

    assert all(channel["address"].startswith("eu1.orders.") for channel in made["channels"].values())
    assert made["channels"]["retry"]["parameters"] == asyncapi.document(config)["channels"]["retry"]["parameters"]


def test_the_document_does_not_depend_on_how_the_interpreter_keeps_docstrings(
    config: Config, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.13 and newer strip the indentation of a docstring; older ones keep it."""
    kinds = {kind for event in events.EVENTS for kind in event.__mro__ if kind.__module__ == events.__name__}
    for kind in kinds:
        if kind.__doc__:
            monkeypatch.setattr(kind, "__doc__", inspect.cleandoc(kind.__doc__) + "\n")
    stripped = asyncapi.text(asyncapi.document(config))
    for kind in kinds:
        if kind.__doc__:
            monkeypatch.setattr(kind, "__doc__", kind.__doc__.replace("\n", "\n    "))

    assert stripped == asyncapi.text(document)
    assert asyncapi.text(asyncapi.document(config)) == asyncapi.text(document)
