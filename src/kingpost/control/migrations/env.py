"""Alembic's entry: migrates over the connection that the store hands in."""

from alembic import context

from kingpost.control.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
context.run_migrations()
