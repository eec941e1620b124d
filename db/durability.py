"""Whether the server keeps what it commits: the settings and standbys that `orderwatch doctor` names."""

from typing import NamedTuple

import sqlalchemy as sa

from db.engine import answering


class Durability(NamedTuple):
    """``off``: settings that may lose a commit with a crash. ``standbys``: names of asynchronous standbys; those whose
    kind this role may not see are not among them."""

    off: list[str]
    standbys: list[str]


_SETTINGS = "select name from pg_settings where name in ('fsync', 'full_page_writes') and setting = 'off' order by name"
_STANDBYS = """
select coalesce(nullif(application_name, ''), 'pid ' || pid) from pg_stat_replication
where sync_state in ('async', 'potential') order by 1"""


def read(engine: sa.Engine) -> Durability:
    """Raises ``StoreUnavailable``."""
    with answering(engine), engine.connect() as connection:
        off = list(connection.execute(sa.text(_SETTINGS)).scalars())
        return Durability(off, list(connection.execute(sa.text(_STANDBYS)).scalars()))
