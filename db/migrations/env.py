"""Run by Alembic for each command of ``db.schema``, which hands over an open connection."""

from alembic import context

from db.models import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, compare_server_default=True
)
with context.begin_transaction():
    context.run_migrations()
