"""The database of operators' commands: it is checked before it is used."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest

from spincycle_grpc.errors import FailedPreconditionError, InvalidArgumentError
from spincycle_server.maintenance.operator_database import OperatorDatabase
from tests.databases import OPTIONS


def test_a_current_database_is_accepted_and_has_a_clock(migrated_url: str) -> None:
    with contextlib.closing(OperatorDatabase(migrated_url, OPTIONS)) as database:
        database.check()
        first = database.now()
        assert first <= database.now()
        assert abs(first / 1e6 - time.time()) < 3600, "it is in microseconds"


def test_a_database_without_the_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    with (
        contextlib.closing(OperatorDatabase(f"sqlite:///{tmp_path}/empty.db", OPTIONS)) as database,
        pytest.raises(FailedPreconditionError, match="is older than this program: run `spincycle migrate`"),
    ):
        database.check()


def test_a_missing_sqlite_file_is_named_and_not_created(tmp_path: Path) -> None:
    with (
        contextlib.closing(OperatorDatabase(f"sqlite:///{tmp_path}/none.db", OPTIONS)) as database,
        pytest.raises(FailedPreconditionError, match=r"/none\.db does not exist: name the database"),
    ):
        database.check()
    assert not list(tmp_path.iterdir())


def test_a_url_of_an_unknown_database_is_refused() -> None:
    with pytest.raises(InvalidArgumentError):
        OperatorDatabase("oracle://x/y", OPTIONS)
