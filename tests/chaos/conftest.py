"""Systems on one Apache Kafka node for the tests of single rows of the failure matrix."""

from tests.integration.conftest import system_of as system_of
