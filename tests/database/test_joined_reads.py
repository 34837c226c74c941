"""Reads that arrive together share a statement, and each caller gets its own row."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path

import pytest
from sqlalchemy.engine import Connection

from spincycle_grpc.errors import InternalError, SpinCycleError, UnavailableError
from spincycle_server.database import joined_reads
from spincycle_server.database.engine import make_engine, parse_url
from spincycle_server.database.joined_reads import MAX_KEYS, JoinedReads
from spincycle_server.database.read_pool import ReadPool
from tests.databases import OPTIONS
from tests.limits import STEP


class Rows:
    """Rows that a test reads. Each statement waits until the test lets it go on.

    Attributes:
        statements: The keys of each statement so far.
        values: The row of each key.
        fails: Whether statements fail.
        fails_later: Whether they fail after a row that cannot be read.
        goes_on: Set while statements go on.
    """

    def __init__(self) -> None:
        self.statements: list[list[str]] = []
        self.values: dict[str, str] = {}
        self.fails = False
        self.fails_later = False
        self.goes_on = threading.Event()
        self._begun = threading.Semaphore(0)

    def read(self, _: Connection, keys: Sequence[str]) -> Mapping[str, str]:
        self.statements.append([*keys])
        self._begun.release()
        found = {key: self.values[key] for key in keys if key in self.values}
        assert self.goes_on.wait(STEP)
        if self.fails:
            raise UnavailableError("the database is away")
        if "broken" in keys:
            self.fails = self.fails_later
            raise ValueError("not a time")
        return found

    async def wait_begun(self) -> None:
        """Waits until one more statement has begun."""
        assert await asyncio.to_thread(self._begun.acquire, timeout=STEP)


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
async def joined(rows: Rows, tmp_path: Path) -> AsyncIterator[JoinedReads[str, str]]:
    engine = make_engine(parse_url(f"sqlite:///{tmp_path / 'reads.db'}"), OPTIONS, connections=3, reads=True)
    pool = ReadPool(engine, threads=2, patience=0.0)
    yield JoinedReads(pool, rows.read)
    rows.goes_on.set()
    await pool.close()


def begin(joined: JoinedReads[str, str], *keys: str) -> list[asyncio.Task[str | None]]:
    return [asyncio.create_task(joined.get(key)) for key in keys]


async def test_reads_that_arrive_together_share_a_statement(
    joined: JoinedReads[str, str], rows: Rows
) -> None:
    rows.values = {"a": "A", "b": "B"}
    rows.goes_on.set()
    assert await asyncio.gather(*begin(joined, "a", "missing", "b", "a")) == ["A", None, "B", "A"]
    assert rows.statements == [["a", "b", "missing"]]


async def test_a_read_never_joins_a_statement_that_has_begun(
    joined: JoinedReads[str, str], rows: Rows
) -> None:
    rows.values = {"a": "old"}
    earlier = begin(joined, "a")
    await rows.wait_begun()
    rows.values = {"a": "new", "b": "B"}
    later = begin(joined, "a", "b")
    await asyncio.sleep(0)
    rows.goes_on.set()
    assert await asyncio.gather(*earlier, *later) == ["old", "new", "B"]
    assert rows.statements == [["a"], ["a", "b"]]


async def test_a_statement_reads_only_so_many_keys(joined: JoinedReads[str, str], rows: Rows) -> None:
    keys = [f"{number:03}" for number in range(2 * MAX_KEYS + 1)]
    rows.values = {key: key for key in keys}
    rows.goes_on.set()
    assert await asyncio.gather(*begin(joined, *keys)) == keys
    assert [*map(len, rows.statements)] == [MAX_KEYS, MAX_KEYS, 1]


async def test_a_row_that_cannot_be_read_does_not_affect_others(
    joined: JoinedReads[str, str], rows: Rows
) -> None:
    rows.values = {"a": "A", "broken": "", "c": "C"}
    rows.goes_on.set()
    found = await asyncio.gather(*begin(joined, "a", "broken", "c"), return_exceptions=True)
    assert [found[0], found[2]] == ["A", "C"]
    assert isinstance(found[1], InternalError)
    assert rows.statements == [["a", "broken", "c"], ["a"], ["broken"], ["c"]]


async def test_rows_are_not_read_alone_any_more_if_the_database_is_away(
    joined: JoinedReads[str, str], rows: Rows
) -> None:
    """Each attempt may take as long as the timeout of the database."""
    rows.fails_later = True
    rows.goes_on.set()
    found = await asyncio.gather(*begin(joined, "a", "broken", "c", "a"), return_exceptions=True)
    assert [*map(type, found)] == [UnavailableError] * 4
    assert rows.statements == [["a", "broken", "c"], ["a"]]


async def test_only_rows_that_somebody_waits_for_are_read_alone(
    joined: JoinedReads[str, str], rows: Rows
) -> None:
    rows.values = {"a": "A", "c": "C"}
    waiting = begin(joined, "a", "broken", "c", "a")
    await rows.wait_begun()
    waiting[1].cancel()
    await asyncio.sleep(0)
    rows.goes_on.set()
    assert await asyncio.gather(*waiting[::2], waiting[3]) == ["A", "C", "A"]
    assert rows.statements == [["a", "broken", "c"], ["a"], ["c"]]


async def test_an_error_reaches_all_who_wait_for_the_statement(
    joined: JoinedReads[str, str], rows: Rows
) -> None:
    rows.fails = True
    rows.values = {"c": "C"}
    failing = begin(joined, "a", "b")
    await rows.wait_begun()
    behind = begin(joined, "c")
    await asyncio.sleep(0)
    rows.goes_on.set()
    for task in failing:
        with pytest.raises(SpinCycleError, match="the database is away"):
            await task
    with pytest.raises(SpinCycleError):
        await behind[0]
    rows.fails = False
    assert await joined.get("c") == "C"


async def test_a_caller_that_gives_up_takes_nothing_from_the_others(
    joined: JoinedReads[str, str], rows: Rows
) -> None:
    rows.values = {"a": "A", "b": "B", "c": "C"}
    impatient, patient = begin(joined, "a", "b")
    await rows.wait_begun()
    gone, there = begin(joined, "gone", "c")
    await asyncio.sleep(0)
    impatient.cancel()
    gone.cancel()
    rows.goes_on.set()
    assert [await patient, await there] == ["B", "C"]
    assert rows.statements == [["a", "b"], ["c"]]


async def test_nothing_is_read_if_all_callers_gave_up(joined: JoinedReads[str, str], rows: Rows) -> None:
    begun = begin(joined, "a")
    await rows.wait_begun()
    gone = begin(joined, "gone")
    await asyncio.sleep(0)
    gone[0].cancel()
    rows.goes_on.set()
    assert await begun[0] is None
    assert await joined.get("b") is None
    assert rows.statements == [["a"], ["b"]]


async def test_nobody_waits_for_ever_if_a_read_is_cancelled(
    joined: JoinedReads[str, str], rows: Rows
) -> None:
    rows.values = {"b": "B"}
    cancelled = begin(joined, "a")
    await rows.wait_begun()
    behind = begin(joined, "b")
    await asyncio.sleep(0)
    (reading,) = joined._running
    reading.cancel()
    rows.goes_on.set()
    async with asyncio.timeout(STEP):
        await asyncio.wait(cancelled)
    assert cancelled[0].cancelled()
    assert await behind[0] == "B"


async def test_calls_do_not_wait_for_statements_that_hang(
    joined: JoinedReads[str, str], rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joined_reads, "SLOW", 0.001)
    monkeypatch.setattr(joined_reads, "MAX_AT_ONCE", 2)
    rows.values = {"a": "A", "b": "B", "c": "C", "d": "D"}
    found = []
    for number, key in enumerate("abcd"):
        found += begin(joined, key)
        if number < 2:
            await rows.wait_begun()
    await asyncio.sleep(0.01)
    assert rows.statements == [["a"], ["b"]], "two hang, and no more may run"
    rows.goes_on.set()
    assert await asyncio.gather(*found) == ["A", "B", "C", "D"]
    assert rows.statements == [["a"], ["b"], ["c", "d"]]
    assert not joined._running


async def test_a_statement_has_nothing_of_the_call_that_began_it(tmp_path: Path) -> None:
    caller: ContextVar[str] = ContextVar("caller", default="nobody")
    seen: list[str] = []

    class Pool:
        async def read(self, *_: object) -> Mapping[str, str]:
            seen.append(caller.get())
            return {}

    caller.set("finch")
    joined: JoinedReads[str, str] = JoinedReads(Pool(), lambda *_: {})  # type: ignore[arg-type]
    await joined.get("a")
    assert seen == ["nobody"]
