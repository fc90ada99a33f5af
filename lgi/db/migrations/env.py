"""Alembic's entry: migrations run on the connection they are given, in its transaction."""

from alembic import context

from lgi.db.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
