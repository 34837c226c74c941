"""Runs the migrations for Alembic: on the connection of the command, or as SQL text."""

from alembic import context

from spincycle_server.store.schema import metadata

_connection = context.config.attributes["connection"]
if context.is_offline_mode():
    context.configure(
        dialect_name=_connection.dialect.name,
        target_metadata=metadata,
        output_buffer=context.config.output_buffer,
        literal_binds=True,
        # SQLite can roll back changes of the schema too, although Alembic assumes otherwise.
        transactional_ddl=_connection.dialect.name != "mysql",
    )
else:
    context.configure(connection=_connection, target_metadata=metadata, transaction_per_migration=False)
with context.begin_transaction():
    context.run_migrations()
