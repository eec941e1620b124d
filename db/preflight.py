"""Finds what will certainly fail later in the database, before the first order is bought."""

from collections.abc import Sequence

import sqlalchemy as sa

from db.engine import answering
from db.models import metadata
from streams.errors import ConfigError

_SERVER = """
select current_setting('server_encoding') as encoding, pg_is_in_recovery() as standby,
    current_setting('transaction_read_only') as read_only, current_setting('server_version_num')::int as version,
    current_setting('statement_timeout') as statement_timeout, current_setting('synchronous_commit') as durable,
    current_schema() as schema, to_regclass('alembic_version') is null as no_version,
    coalesce(has_schema_privilege(current_schema(), 'create'), false) as may_create,
    (select count(*) from pg_class c where c.relnamespace = current_schema()::regnamespace
        and c.relname = any(:tables) and c.relkind in ('r', 'p', 'v')) as named_like_ours"""

_RIGHTS = """
select t, p from unnest(cast(:tables as text[])) t, unnest(array['select', 'insert', 'update']) p
where to_regclass(t) is not null and not has_table_privilege(t, p) order by t, p"""


def require(problems: Sequence[str]) -> None:
    """Raises ``ConfigError`` with one line per problem."""
    if problems:
        raise ConfigError("\n".join(f"database: {problem}" for problem in problems))


def server_problems(engine: sa.Engine) -> list[str]:
    """What is wrong with the server, the database or its schema, one line each. Raises ``StoreUnavailable``."""
    with answering(), engine.connect() as connection:
        seen = connection.execute(sa.text(_SERVER), {"tables": sorted(metadata.tables)}).one()
    found = []
    if seen.encoding != "UTF8":
        found.append(f"its encoding is {seen.encoding}; expected UTF8: providers and customers write in every alphabet")
    if seen.version < 140000:
        found.append(f"the server is PostgreSQL {seen.version // 10000}; expected 14 or newer")
    if seen.standby or seen.read_only == "on":
        found.append("it is read-only (a standby, or default_transaction_read_only); expected the primary")
    if seen.schema is None:
        found.append("no schema of its search_path exists or may be used; expected one, such as public")
    elif seen.no_version and seen.named_like_ours:
        found.append(
            f"schema {seen.schema} has {seen.named_like_ours} tables named like ours that Orderwatch did not make;"
            " expected a database or a schema of its own"
        )
    elif seen.no_version and not seen.may_create:
        found.append(
            f"this role may not create tables in schema {seen.schema}; expected GRANT CREATE ON SCHEMA"
            f" {seen.schema}, or `orderwatch db upgrade` by a role that may"
        )
    if seen.statement_timeout == "0" or seen.durable == "off":
        found.append("a pooler drops our settings (statement_timeout); expected database.pooler: transaction")
    return found


def rights_problems(engine: sa.Engine) -> list[str]:
    """Rights on our tables that this role lacks, one line per right. Raises ``StoreUnavailable``."""
    tables = sorted(set(metadata.tables) - {"audit"})  # append-only: a role without UPDATE on it is good practice
    with answering(), engine.connect() as connection:
        lacking = connection.execute(sa.text(_RIGHTS), {"tables": tables}).all()
    by_right: dict[str, list[str]] = {}
    for table, right in lacking:
        by_right.setdefault(right, []).append(table)
    return [f"this role may not {right} in {', '.join(names)}; expected GRANT" for right, names in by_right.items()]
