"""Reads that fail leave their reason in the log if the error refers to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import Connection
from structlog.testing import capture_logs

from spincycle_grpc.errors import InternalError, NotFoundError, SpinCycleError, UnavailableError
from spincycle_server.database.engine import make_engine, parse_url
from spincycle_server.database.read_pool import ReadPool
from tests.databases import OPTIONS


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[ReadPool]:
    engine = make_engine(parse_url(f"sqlite:///{tmp_path / 'reads.db'}"), OPTIONS, connections=2, reads=True)
    pool = ReadPool(engine, threads=1, patience=0.0)
    yield pool
    await pool.close()


def raise_defect(connection: Connection) -> None:
    raise OverflowError("too large for an integer")


def raise_not_found(connection: Connection) -> None:
    raise NotFoundError("no such row", reason="REQUEST_NOT_FOUND")


def use_missing_table(connection: Connection) -> None:
    connection.execute(text("SELECT * FROM missing"))


@pytest.mark.parametrize("method", [ReadPool.read, ReadPool.read_beside])
@pytest.mark.parametrize(
    ("read", "translated", "logged"),
    [
        (raise_defect, InternalError, OverflowError),
        (use_missing_table, UnavailableError, Exception),
        (raise_not_found, NotFoundError, None),
    ],
)
async def test_a_failure_whose_error_refers_to_the_log_is_logged(
    pool: ReadPool, method: Any, read: Any, translated: type[SpinCycleError], logged: type[Exception] | None
) -> None:
    with capture_logs() as logs, pytest.raises(translated):
        await method(pool, read)
    assert [entry["event"] for entry in logs] == (["read failed"] if logged else [])
    if logged:
        assert isinstance(logs[0]["exc_info"], logged)
