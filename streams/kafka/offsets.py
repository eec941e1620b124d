"""Where the records of a partition really lie: offsets alone also count transaction markers and compacted records."""

import time
from collections.abc import Mapping

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from streams.config.loader import KafkaConfig
from streams.errors import BrokerUnavailable
from streams.kafka.errors import made, unavailable
from streams.kafka.producer import READ_COMMITTED, client_settings

Place = tuple[str, int]
#: (topic, partition) -> (committed offset or None, end offset).
Lags = Mapping[Place, tuple[int | None, int]]

#: One record of each partition is enough.
_LITTLE = {"fetch.message.max.bytes": 65_536, "queued.max.messages.kbytes": 1024, "fetch.wait.max.ms": 20}


def beyond_end(lags: Lags) -> dict[Place, tuple[int, int]]:
    """(topic, partition) -> (committed, end) where more is committed than the partition holds: the topic was lost or
    made anew, and the offsets are those of the old one."""
    return {
        place: (committed, end) for place, (committed, end) in lags.items() if committed is not None and committed > end
    }


def records_left(kafka: KafkaConfig, lags: Lags, timeout_s: float = 10.0) -> dict[Place, int]:
    """(topic, partition) -> offsets from the next record to the end; 0 when no record is left.

    Topics without prefix. Blocks. Raises ``BrokerUnavailable``.
    """
    behind = {place: at or 0 for place, (at, end) in lags.items() if end > (at or 0)}
    found = dict.fromkeys(lags, 0)
    for place, first in next_records(kafka, behind, timeout_s).items():
        if first is not None:
            found[place] = max(lags[place][1] - first, 0)
    return found


def next_records(kafka: KafkaConfig, places: Mapping[Place, int], timeout_s: float = 10.0) -> dict[Place, int | None]:
    """(topic, partition) -> offset of the first committed record at or after the given offset; None: there is none.

    Topics without prefix. Blocks. Raises ``BrokerUnavailable``.
    """
    if not places:
        return {}
    prefix = kafka.topic_prefix
    consumer = made(
        Consumer,
        client_settings(kafka)
        | READ_COMMITTED
        | _LITTLE
        | {
            "group.id": f"{prefix}orderwatch-look",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        },
    )
    found: dict[Place, int | None] = {}
    deadline = time.monotonic() + timeout_s
    try:
        consumer.assign(
            [
                TopicPartition(prefix + topic, partition, offset or OFFSET_BEGINNING)
                for (topic, partition), offset in places.items()
            ]
        )
        while len(found) < len(places):
            record = consumer.poll(max(deadline - time.monotonic(), 0))
            if record is None:
                raise BrokerUnavailable(f"kafka: next records: no answer within {timeout_s:g} s")
            error = record.error()
            if error and error.code() != KafkaError._PARTITION_EOF:
                if error.retriable():
                    continue
                raise KafkaException(error)
            place = (record.topic().removeprefix(prefix), record.partition())
            if place not in found:
                found[place] = None if error else record.offset()
                consumer.incremental_unassign([TopicPartition(*(record.topic(), record.partition()))])
        return found
    except KafkaException as error:
        raise unavailable(error.args[0], "next records") from None
    finally:
        consumer.close()
