"""How the dialect of MySQL and MariaDB looks up tables."""

from __future__ import annotations

import pytest
from sqlalchemy import event, inspect, text
from sqlalchemy.exc import DBAPIError

from spincycle_server.database.engine import make_engine, parse_url
from spincycle_server.store import DatabaseOptions
from tests.databases import SharedServers


def test_tables_and_views_are_found_without_a_temporary_table(database_servers: SharedServers) -> None:
    server = database_servers.get("mariadb")
    engine = make_engine(parse_url(server.fresh_database()), DatabaseOptions(), connections=1, reads=False)
    statements: list[str] = []
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE `a ``table` (number INTEGER)"))
        connection.execute(text("CREATE VIEW looks AS SELECT number FROM `a ``table`"))
        event.listen(connection, "before_cursor_execute", lambda *given: statements.append(given[2]))
        inspector = inspect(connection)
        names = ("a `table", "looks", "absent")
        assert [inspector.has_table(name) for name in names] == [True, True, False]
        assert not inspector.has_table("looks", schema="absent")
        assert inspector.has_table("user", schema="mysql")
    assert not [statement for statement in statements if "DESCRIBE" in statement]
    engine.dispose()


def test_an_error_does_not_count_as_a_missing_table(database_servers: SharedServers) -> None:
    server = database_servers.get("mariadb")
    url = server.fresh_database()
    server.execute("CREATE OR REPLACE USER stranger@127.0.0.1")
    server.execute(f"GRANT CREATE ON {url.rpartition('/')[2]}.* TO stranger@127.0.0.1")
    server.execute(f"CREATE TABLE {url.rpartition('/')[2]}.hidden (number INTEGER)")
    engine = make_engine(
        parse_url(url.replace("root@", "stranger@")), DatabaseOptions(), connections=1, reads=False
    )
    with engine.connect() as connection, pytest.raises(DBAPIError, match="denied"):
        inspect(connection).has_table("hidden")
    engine.dispose()
    server.execute("DROP USER stranger@127.0.0.1")
