"""Where the tests find Apache Kafka."""

from orderwatch.apache_kafka import ROOT, Kafka

__all__ = ["ROOT", "Kafka"]
