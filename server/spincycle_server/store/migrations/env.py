"""What Alembic runs for each command: the migrations, on the connection that it was given, or as SQL text."""

from alembic import context

from spincycle_server.store.schema import metadata

_connection = context.config.attributes["connection"]
if context.is_offline_mode():
    context.configure(
        dialect_name=_connection.dialect.name,
        target_metadata=metadata,
        output_buffer=context.config.output_buffer,
        literal_binds=True,
        # What can be done as a whole or not at all is: on SQLite too, whatever Alembic thinks of it.
        transactional_ddl=_connection.dialect.name != "mysql",
    )
else:
    context.configure(connection=_connection, target_metadata=metadata, transaction_per_migration=False)
with context.begin_transaction():
    context.run_migrations()
