"""How the servers and the operators' commands connect to the database."""

from __future__ import annotations

from spincycle_server.config import Config
from spincycle_server.database.engine import DatabaseOptions


def database_options(config: Config) -> DatabaseOptions:
    """Returns the options of a database connection that the configuration sets."""
    return DatabaseOptions(
        timeout=config.database_timeout,
        connections=config.database_connections,
        cert_file=config.mysql_cert_file,
        key_file=config.mysql_key_file,
        ca_file=config.mysql_ca_file,
        schema=config.database_schema,
    )
