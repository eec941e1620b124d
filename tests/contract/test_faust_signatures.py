"""What we override or reach into of Faust and aiokafka: an upgrade that changes one of these signatures fails here,
before it does in a worker."""

import inspect
from collections.abc import Callable
from typing import Any

import faust
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from faust.app.base import App
from faust.tables import TableManager
from faust.tables.recovery import Recovery
from faust.transport.consumer import Consumer
from faust.transport.drivers import aiokafka as driver
from faust.types.settings import Settings

OVERRIDDEN: list[tuple[Callable[..., Any], str]] = [
    (driver.AIOKafkaConsumerThread._create_worker_consumer, "self transport"),
    (driver.AIOKafkaConsumerThread.assignment, "self"),
    (driver.AIOKafkaConsumerThread._start_thread, "self"),
    (driver.AIOKafkaConsumerThread._fetch_records, "self consumer active_partitions timeout max_records"),
    (driver.AIOKafkaConsumerThread._highwaters, "self partitions"),
    (driver.AIOKafkaConsumerThread.seek_to_committed, "self"),
    (driver.AIOKafkaConsumerThread.seek_to_beginning, "self partitions"),
    (driver.AIOKafkaConsumerThread.call_thread, "self fun args kwargs"),
    (driver.Consumer._new_consumer_thread, "self"),
    (Consumer.getmany, "self timeout"),
    (driver.Consumer._getmany, "self active_partitions timeout"),
    (driver.Consumer._to_message, "self tp record"),
    (Consumer.wait_first, "self coros timeout"),
    (Consumer.ack, "self message"),
    (Consumer._new_offset, "self tp"),
    (Consumer._should_commit, "self tp offset"),
    (Consumer._add_gap, "self tp offset_from offset_to"),
    (Consumer.perform_seek, "self"),
    (
        driver.Transport._really_create_topic,
        "self owner client topic partitions replication config timeout retention compacting deleting ensure_created",
    ),
    (App._new_transport, "self"),
    (App._create_directories, "self"),
    (App.on_start, "self"),
    (App.on_stop, "self"),
    (App.on_shutdown, "self"),
    (Recovery._wait, "self coro timeout"),
    (faust.Table.on_key_set, "self key value"),
    (faust.Table.on_key_del, "self key"),
    (Settings.getenv, "self env_name"),
]


@pytest.mark.parametrize(("function", "parameters"), OVERRIDDEN, ids=lambda value: getattr(value, "__qualname__", ""))
def test_a_signature_is_the_one_we_override(function: Callable[..., Any], parameters: str) -> None:
    assert list(inspect.signature(function).parameters) == parameters.split()


def test_what_is_set_by_hand_is_still_read() -> None:
    assert "self._isolation_level" in inspect.getsource(AIOKafkaConsumer.start)
    assert "self._fetch_max_wait_ms" in inspect.getsource(AIOKafkaConsumer.start)
    assert "self._records" in inspect.getsource(Fetcher)
    assert "request_rejoin" in inspect.getsource(GroupCoordinator._on_metadata_change)
    assert "_read_offset" in inspect.getsource(Consumer.perform_seek)
    assert "_committed_offset" in inspect.getsource(Consumer.perform_seek)
    assert isinstance(inspect.getattr_static(TableManager, "recovery"), property)
