"""The emergency switch of an integration: no new sends, while everything open is still followed.

It is part of the stored catalogue (``enabled`` of the block), and remembered beside it: an import of a file that knows
nothing of the emergency leaves the integration off. Functions raise ``StoreUnavailable`` when PostgreSQL does not
answer.
"""

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from db import models as m
from db.control import stored_config
from db.control.integration_state import audit
from db.engine import answering
from streams.errors import ConfigError


def set_enabled(engine: sa.Engine, integration_id: str, enabled: bool, by: str, reason: str) -> bool:
    """Switch an integration on or off in a person's name. False when it stood like that already.

    Running workers follow within a second. Raises ``ConfigError`` naming those there are when it is not stored.
    """
    i = m.integrations
    doc = i.c.doc.op("||")(sa.cast({"enabled": enabled}, JSONB))
    off = None if enabled else {"by": by, "reason": reason}
    with answering(engine), engine.begin() as connection:
        stored_config.lock(connection)
        row = connection.execute(sa.select(i.c.doc, i.c.switched_off, i.c.tenant_id).where(i.c.id == integration_id))
        found = row.one_or_none()
        if found is None:
            known = ", ".join(connection.execute(sa.select(i.c.id).order_by(i.c.id)).scalars()) or "none"
            raise ConfigError(
                f"there is no integration {integration_id} in the stored catalogue; expected one of {known}"
            )
        if found.doc.get("enabled", True) is enabled and (found.switched_off is None) is enabled:
            return False
        connection.execute(
            sa.update(i)
            .where(i.c.id == integration_id)
            .values(doc=doc, switched_off=off, updated_at=sa.func.now(), updated_by=by)
        )
        audit(
            connection,
            by,
            "integration.on" if enabled else "integration.off",
            tenant_id=found.tenant_id,
            details={"integration": integration_id, "reason": reason},
        )
        stored_config.bump(connection)
        return True


def states(engine: sa.Engine) -> dict[str, bool]:
    """Whether each integration that says so is on; those whose block says nothing are left out. Cheap: asked often."""
    enabled = m.integrations.c.doc["enabled"]
    query = sa.select(m.integrations.c.id, enabled).where(sa.func.jsonb_typeof(enabled) == "boolean")
    with answering(engine), engine.connect() as connection:
        return {row[0]: bool(row[1]) for row in connection.execute(query)}


def switched_off(engine: sa.Engine) -> dict[str, Mapping[str, str]]:
    """Integration -> who switched it off and why; nothing of those that the configuration itself holds off."""
    i = m.integrations.c
    with answering(engine), engine.connect() as connection:
        rows = connection.execute(sa.select(i.id, i.switched_off).where(i.switched_off.is_not(None)))
        return {row.id: row.switched_off for row in rows}
