"""Turns errors of librdkafka into ours: the client's own words, no credentials, and whether waiting can help."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from streams.config.loader import KafkaConfig
from streams.errors import BrokerRefused, BrokerUnavailable, ConfigError

_NO_TOPIC = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
_NO_RIGHT = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
#: No broker answered; what went wrong is in the errors that were heard meanwhile.
AWAY = {KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN}
#: The most telling cause first: one failed connection reports several.
_TELLING = (KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError._RESOLVE, KafkaError._TRANSPORT)
#: Parts of a TLS error that no time repairs.
_TLS_REFUSED = ("verify failed", "wrong version number", "unknown ca", "bad certificate", "certificate required")

_C = TypeVar("_C")


def unavailable(error: KafkaError, what: str) -> BrokerUnavailable:
    """Our error for one of librdkafka's, with what to do where we know it."""
    hint = ""
    if error.code() in _NO_TOPIC:
        hint = "; run `orderwatch topics apply`"
    elif error.code() in _NO_RIGHT:
        hint = "; docs/operating.md lists the rights that each topic and group needs"
    return BrokerUnavailable(f"kafka: {what}: {error.str()} ({error.name()}){hint}")


def made(kind: Callable[[dict[str, Any]], _C], settings: dict[str, Any]) -> _C:
    """A client of these settings. Raises ``ConfigError`` with the reason, such as a missing CA file."""
    try:
        return kind(settings)
    except KafkaException as error:
        words = _without(error.args[0].str(), settings.get("sasl.username"), settings.get("sasl.password"))
        raise ConfigError(f"kafka: {words}; expected settings of kafka.security that work") from None


def unreached(
    kafka: KafkaConfig, error: KafkaError, heard: Sequence[KafkaError], timeout_s: float
) -> BrokerUnavailable:
    """Why no broker answered, in the words of the errors that were ``heard`` meanwhile. ``BrokerRefused`` when waiting
    cannot help."""
    cause = min(
        (item for item in heard if item.code() in _TELLING), key=lambda item: _TELLING.index(item.code()), default=None
    )
    security = kafka.security
    password = security.password.get_secret_value() if security.password else None
    where = f"kafka: no answer from {kafka.bootstrap_servers} within {timeout_s:g} s"
    if cause is None:
        return BrokerUnavailable(
            f"{where} ({error.name()}); is the broker running, and is kafka.bootstrap_servers right?"
        )
    words = _without(cause.str(), security.username, password)
    if refused(cause):
        return BrokerRefused(
            f"kafka: {kafka.bootstrap_servers} refused the connection: {words}; "
            "expected settings of kafka.security that the broker accepts"
        )
    return BrokerUnavailable(
        f"{where}: {words} ({cause.name()}); is the broker running, and are "
        "kafka.bootstrap_servers and kafka.security right?"
    )


def refused(error: KafkaError) -> bool:
    """True for an answer that stays the same however long we wait."""
    if error.code() == KafkaError._SSL:
        return any(part in error.str().lower() for part in _TLS_REFUSED)
    return bool(error.code() == KafkaError._AUTHENTICATION)


def _without(words: str, *hidden: str | None) -> str:
    for word in hidden:
        if word:
            words = words.replace(word, "***")
    return words
