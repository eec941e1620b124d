"""One dashboard for every test that only asks it: started once, its tables emptied for each."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from db import models as m
from orderwatch.localservers.bundled import Broker, Postgres
from streams import topics
from streams.kafka.producer import apply_topics
from tests.conftest import run_sql
from tests.contract.hands import carrying_out
from tests.dashboard import Dashboard, dashboard, settings


@pytest.fixture(scope="session")
def running_site(postgres: Postgres, template: str, broker: Broker) -> Iterator[Dashboard]:
    run_sql(postgres, f"create database dashboard template {template}")
    config = settings(postgres.url_of("dashboard"), broker.address, session_key="k" * 40)
    apply_topics(config.kafka, topics.specs(config))
    with dashboard(config) as running:
        yield running


@pytest.fixture
def hands(site: Dashboard) -> Iterator[None]:
    """Commands are carried out while the test runs."""
    with carrying_out(site.config):
        yield


@pytest.fixture
def site(running_site: Dashboard) -> Dashboard:
    """Nothing is in its tables; the broker keeps what was said."""
    with running_site.engine.begin() as connection:
        names = ", ".join(table.name for table in m.metadata.sorted_tables)
        connection.execute(sa.text(f"truncate {names} restart identity"))
    return running_site
