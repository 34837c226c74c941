"""How much a database does for statements that read, in numbers that are the same on every machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection


def reading_work(connection: Connection, read: Callable[[], object], table: str = "") -> int:
    """Runs a function that reads, and returns how much the database does for its statements.

    MariaDB counts the rows that it reads, also those of temporary tables. PostgreSQL counts the rows that it
    reads from tables, and SQLite the instructions of its virtual machine.

    Args:
        connection: The connection that the function uses.
        read: The function.
        table: Only statements that name this table; "" for all.
    """
    statements: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        if table in statement:
            statements.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", note)
    try:
        read()
    finally:
        event.remove(connection, "before_cursor_execute", note)
    assert statements
    work = {"sqlite": _instructions, "mysql": _rows_of_mariadb, "postgresql": _rows_of_postgresql}
    return sum(work[connection.dialect.name](connection, *one) for one in statements)


def _instructions(connection: Connection, statement: str, parameters: Any) -> int:
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    database: Any = connection.connection.dbapi_connection
    database.set_progress_handler(step, 1)
    try:
        connection.exec_driver_sql(statement, parameters).all()
    finally:
        database.set_progress_handler(None, 1)
    return count


def _rows_of_mariadb(connection: Connection, statement: str, parameters: Any) -> int:
    before = _handler_reads(connection)
    overhead = _handler_reads(connection) - before
    before = _handler_reads(connection)
    connection.exec_driver_sql(statement, parameters).all()
    return _handler_reads(connection) - before - overhead


def _handler_reads(connection: Connection) -> int:
    rows = connection.exec_driver_sql("SHOW SESSION STATUS LIKE 'Handler_read%%'").all()
    return sum(int(row[1]) for row in rows)


def _rows_of_postgresql(connection: Connection, statement: str, parameters: Any) -> int:
    explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"
    [plan] = connection.exec_driver_sql(explain, parameters).scalar_one()
    return sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in _nodes(plan["Plan"])
        if "Relation Name" in node
    )


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)
