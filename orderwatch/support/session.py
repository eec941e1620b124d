"""What a command works with: the configuration with bundled servers resolved, and the database."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from pydantic import SecretStr

from db.control import stored_config
from db.engine import answering, connect
from orderwatch.localservers.bundled import Parts, running
from streams.config.loader import EMBEDDED, Config, load, refuse_mixed, with_catalog
from streams.errors import ConfigError, StoreRefused
from streams.kafka.producer import Outgoing, ProducerThread


def configured(path: Path) -> Config:
    """The configuration, ready to connect with. Raises ``ConfigError``, also when bundled servers are not running."""
    return with_parts(load(path, os.environ), None)


def wants_parts(config: Config) -> bool:
    """Whether the configuration leaves broker or database to the bundled servers."""
    return EMBEDDED in (config.kafka.bootstrap_servers, config.database.url.get_secret_value())


def with_parts(config: Config, parts: Parts | None) -> Config:
    """``config`` with ``embedded`` replaced by the addresses of ``parts``, or of those another process runs."""
    refuse_mixed(config)
    if not wants_parts(config):
        return config
    parts = parts or running()
    if parts is None:
        raise ConfigError("no embedded parts are running: start `orderwatch worker` or `orderwatch demo` first")
    if config.kafka.bootstrap_servers == EMBEDDED:
        kafka = config.kafka.model_copy(update={"bootstrap_servers": parts.broker})
        config = config.model_copy(update={"kafka": kafka})
    if config.database.url.get_secret_value() == EMBEDDED:
        database = config.database.model_copy(update={"url": SecretStr(parts.database)})
        config = config.model_copy(update={"database": database})
    return config


@contextmanager
def database(config: Config, pool_size: int = 2) -> Iterator[sa.Engine]:
    """The database for the length of a command. Raises ``ConfigError`` when it has no tables."""
    engine = connect(config.database.url.get_secret_value(), pool_size, pooler=config.database.pooler)
    try:
        with answering():
            yield engine
    except StoreRefused as error:
        if error.code not in ("42P01", "42703"):
            raise
        raise ConfigError("the database has not the tables of this release: run `orderwatch db upgrade`") from None
    finally:
        engine.dispose()


def with_stored_catalog(config: Config, engine: sa.Engine) -> Config:
    """``config`` with the integrations, routes and mappings that the workers follow: those in the database, if any."""
    docs = stored_config.read(engine)
    return with_catalog(config, docs, os.environ) if docs.integrations else config


@contextmanager
def emitting(config: Config) -> Iterator[Callable[[Sequence[Outgoing]], None]]:
    """A function that sends records and returns when the broker has them; it raises ``BrokerUnavailable``."""
    pump = ProducerThread(config.kafka)
    try:
        yield pump.write
    finally:
        pump.close()
