"""What docs/production.md says about upgrades: a Request Manager and a newer schema."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import text

from spincycle_grpc import Client
from spincycle_grpc.state import State
from tests.databases import engine_of, migrate
from tests.e2e.processes import running
from tests.limits import PROCESS_END, REQUEST_END

NEWER_SCHEMA = (
    "ALTER TABLE requests ADD COLUMN of_a_newer_version INTEGER",
    "ALTER TABLE job_log ADD COLUMN of_a_newer_version INTEGER",
    "CREATE TABLE of_a_newer_version (id INTEGER PRIMARY KEY)",
    "UPDATE alembic_version SET version_num = '9999'",
)
"""A migration of the kind that a release may have: it only adds."""


def test_a_request_manager_goes_on_after_the_migration_of_a_newer_version_but_does_not_start_again(
    database_url: str, tmp_path: Path
) -> None:
    migrate(database_url)
    environment = {"SPINCYCLE_DATABASE_URL": database_url}
    with running("server", "--http=127.0.0.1:0", directory=tmp_path, environment=environment) as server:
        server.wait_for("reporting")
        with Client(server.address("request-manager", "grpc")) as client:
            before = client.create("diamond")
            engine = engine_of(database_url)
            with engine.begin() as connection:
                for statement in NEWER_SCHEMA:
                    connection.execute(text(statement))
            engine.dispose()
            after = client.create("diamond")
            for request in (before, after):
                assert State(client.wait(request.id, deadline=REQUEST_END).state) is State.COMPLETE
                assert client.log(request.id)
        assert server.terminate() == 0
    with running("server", "--http=127.0.0.1:0", directory=tmp_path, environment=environment) as server:
        assert server.process.wait(PROCESS_END) == 1
        assert "the database belongs to a newer version" in server.log()
