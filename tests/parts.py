"""Where the tests find Apache Kafka."""

from orderwatch.localservers.apache_kafka import ROOT, Kafka

__all__ = ["ROOT", "Kafka"]
