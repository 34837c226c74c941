"""The indexes for finds: an upgrade adds them to an older database and fills them for its requests."""

from __future__ import annotations

from alembic import command
from sqlalchemy import insert, inspect

from spincycle_grpc.v1.request_pb2 import RequestFilter
from spincycle_server.store import finding, migrations
from spincycle_server.store.schema import request_args, requests
from tests.databases import engine_of, migrate
from tests.store.test_finding import ROWS, expected, found_ids

OLD = ROWS[:50]


def test_finds_work_after_an_older_database_is_upgraded(database_url: str) -> None:
    engine = engine_of(database_url)
    with engine.begin() as connection:
        command.upgrade(migrations._config(connection), "0002")
    with engine.begin() as connection:
        columns = ("request_id", "type", "state", "user", "created_at", "finished_at")
        connection.execute(insert(requests), [{name: getattr(row, name) for name in columns} for row in OLD])
        args = [
            {"request_id": row.request_id, "name": name, "value": value}
            for row in OLD
            for name, value in row.args.items()
        ]
        connection.execute(insert(request_args), args)
    migrate(database_url)
    with engine.connect() as connection:
        for wanted in (
            RequestFilter(args=["host=db1"]),
            RequestFilter(args=["host=db1", "ports=80"], limit=5),
            RequestFilter(type="nap", limit=5),
            RequestFilter(),
        ):
            assert found_ids(connection, wanted) == expected(OLD, wanted)
        assert len(finding.find_requests(connection, RequestFilter(args=["host=db1"]))) > 2
        indexes = {
            index["name"]
            for table in ("requests", "request_args")
            for index in inspect(connection).get_indexes(table)
        }
    engine.dispose()
    assert indexes == {
        "created_at", "finished_at", "state", "requests_type", "requests_user", "request_args_newest",
            "requests_change_stamp", "requests_requirement", "requests_retry_of",
    }  # fmt: skip
