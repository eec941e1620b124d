"""The catalogue that running workers follow: integrations, routes and mappings, stored as they stand in config.yaml.

Blocks are kept unexpanded, so that a credential is never stored, only the name of the variable that holds it. Every
write bumps ``revision`` in the same transaction. Functions raise ``StoreUnavailable`` when PostgreSQL does not answer.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, insert

from db import models as m
from db.engine import answering
from streams.errors import ConfigError

_Block = Mapping[str, Any]
_REVISION = "catalog_revision"
_REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^{}]*)?\}\Z")


class Docs(Protocol):
    """The three lists of config.yaml as plain data."""

    @property
    def integrations(self) -> Sequence[_Block]: ...
    @property
    def routes(self) -> Sequence[_Block]: ...
    @property
    def mappings(self) -> Sequence[_Block]: ...


@dataclass(frozen=True, slots=True)
class CatalogDocs:
    """What the database holds, ordered by tenant and name."""

    integrations: list[dict[str, Any]]
    routes: list[dict[str, Any]]
    mappings: list[dict[str, Any]]


def seed(engine: sa.Engine, docs: Docs, by: str) -> bool:
    """Store the starting set. False when there was something already, or ever: an emptied catalogue stays empty.

    Raises ``ConfigError`` for a literal credential.
    """
    refuse_literal_credentials(docs)
    with answering(engine), engine.begin() as connection:
        lock(connection)
        tables = (m.integrations, m.routes, m.mappings)
        if _revision(connection) or any(connection.scalar(sa.select(sa.exists(sa.select(t)))) for t in tables):
            return False
        _insert(connection, docs, by)
        bump(connection)
        return True


def replace(engine: sa.Engine, docs: Docs, by: str) -> list[str]:
    """Make ``docs`` the whole catalogue: readers see all of it or nothing. Raises as ``seed``.

    What was switched off by hand stays off, whatever ``docs`` say; returns those integrations.
    """
    refuse_literal_credentials(docs)
    with answering(engine), engine.begin() as connection:
        lock(connection)
        i = m.integrations.c
        rows = connection.execute(sa.select(i.id, i.switched_off).where(i.switched_off.is_not(None)))
        off = {row.id: row.switched_off for row in rows}
        for table in (m.integrations, m.routes, m.mappings):
            connection.execute(sa.delete(table))
        _insert(connection, docs, by)
        kept = [name for name in off if _keep_off(connection, name, off[name])]
        bump(connection)
        counts = {name: len(getattr(docs, name)) for name in ("integrations", "routes", "mappings")}
        connection.execute(sa.insert(m.audit).values(actor=by, action="config.import", details=counts))
    return sorted(kept)


def read(engine: sa.Engine) -> CatalogDocs:
    """The catalogue as of one instant."""
    with answering(engine), engine.connect() as connection:
        connection = connection.execution_options(isolation_level="REPEATABLE READ")
        return CatalogDocs(
            *(
                [dict(doc) for doc in connection.scalars(sa.select(table.c.doc).order_by(*names))]
                for table, names in (
                    (m.integrations, (m.integrations.c.tenant_id, m.integrations.c.id)),
                    (m.routes, tuple(m.routes.primary_key)),
                    (m.mappings, tuple(m.mappings.primary_key)),
                )
            )
        )


def revision(engine: sa.Engine) -> str:
    """Changes with every write; ``0`` before the first. Ask for it before ``read``, never after."""
    with answering(engine), engine.connect() as connection:
        return str(_revision(connection))


def refuse_literal_credentials(docs: Docs) -> None:
    """Raises ``ConfigError``, one line per credential that is not the name of a variable; shows none of them."""
    lines = [
        f"integrations[{index}].credentials.{name} is ***; expected ${{NAME}}, as the catalogue never stores a secret"
        for index, doc in enumerate(docs.integrations)
        for name, text in doc.get("credentials", {}).items()
        if not _REFERENCE.match(str(text))
    ]
    if lines:
        raise ConfigError("\n".join(lines))


def lock(connection: sa.Connection) -> None:
    """Part of the caller's transaction: one writer at a time; readers are not held up."""
    connection.execute(sa.text("lock table integrations, routes, mappings in share row exclusive mode"))


def _insert(connection: sa.Connection, docs: Docs, by: str) -> None:
    for table, blocks, names in (
        (m.integrations, docs.integrations, ("id", "tenant_id")),
        (m.routes, docs.routes, ("tenant_id", "package_id")),
        (m.mappings, docs.mappings, ("tenant_id", "package_id", "integration")),
    ):
        rows = [{name: doc[name] for name in names} | {"doc": dict(doc), "updated_by": by} for doc in blocks]
        if rows:
            connection.execute(sa.insert(table), rows)


def _keep_off(connection: sa.Connection, integration_id: str, off: Any) -> bool:
    """False when the integration is gone."""
    i = m.integrations
    kept = (
        sa.update(i)
        .where(i.c.id == integration_id)
        .values(switched_off=off, doc=i.c.doc.op("||")(sa.cast({"enabled": False}, JSONB)))
    )
    return connection.execute(kept).rowcount == 1


def _revision(connection: sa.Connection) -> int:
    value = connection.scalar(sa.select(m.service_state.c.value).where(m.service_state.c.key == _REVISION))
    return int(value or 0)


def bump(connection: sa.Connection) -> None:
    """Part of the caller's transaction: the catalogue is another one now, and workers follow."""
    new = insert(m.service_state).values(key=_REVISION, value=_revision(connection) + 1)
    grown = {"value": new.excluded.value, "at": sa.func.now()}
    connection.execute(new.on_conflict_do_update(index_elements=["key"], set_=grown))
