"""Pages of job logs on each database: joined, they are the whole log, and output is cut at characters."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.engine import Connection

from spincycle_grpc.errors import NotFoundError
from spincycle_grpc.output import first_of_middle
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_server.store import log_pages
from spincycle_server.store.job_logs import get_log, log_row
from spincycle_server.store.log_filter import LogPosition
from spincycle_server.store.log_pages import cut_output, get_log_page
from spincycle_server.store.pages import PageRoom
from spincycle_server.store.schema import job_log
from tests.databases import DATABASES, SharedServers, engine_of, migrate
from tests.store.samples import a_log_entry
from tests.store.test_finding import FIRST, Row, fill

LOUD, QUIET, NOBODY = (letter * 20 for letter in "abc")
CHARACTERS = "xü€😀"
SIZES = (0, 0, 10, 400, 3_000)


def made_entries() -> list[JobLog]:
    """Returns entries with several tries of some jobs and output of all sizes, in the order of the log."""
    chance = random.Random(5)
    jobs = sorted({"".join(chance.choices("09AZaz", k=4)) for _ in range(60)})
    return [
        a_log_entry(
            LOUD,
            job_id,
            number,
            error=chance.choice(["", "no", "e" * 100]),
            path=chance.choice([[], ["restart", "host 😀\0\n…", "drain"]]),
            stdout=chance.choice(CHARACTERS) * chance.choice(SIZES),
            stderr=chance.choice(CHARACTERS) * chance.choice(SIZES),
        )
        for job_id in jobs
        for number in range(1, chance.choice([2, 2, 3, 12]))
    ]


ENTRIES = made_entries()


@pytest.fixture(scope="module", params=DATABASES)
def logged(
    request: pytest.FixtureRequest,
    database_servers: SharedServers,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Connection]:
    """A connection to a database with a request whose log has many entries, and one without a log."""
    url = database_servers.url(request.param, tmp_path_factory.mktemp("log-pages"))
    migrate(url)
    engine = engine_of(url)
    fill(engine, [Row(request_id, "nap", 3, None, FIRST, FIRST + 1) for request_id in (LOUD, QUIET)])
    others = [a_log_entry("b" * 19 + "0", entry.job_id) for entry in ENTRIES[:1]]
    with engine.begin() as connection:
        connection.execute(insert(job_log), [log_row(entry, None) for entry in (*ENTRIES, *others)])
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def pages_of(connection: Connection, page_size: int, max_output: int | None) -> list[list[JobLog]]:
    """Returns all pages of the log."""
    pages = []
    behind: LogPosition | None = None
    while True:
        page = get_log_page(connection, LOUD, behind, page_size, max_output)
        pages.append(page.entries)
        behind = page.last
        if behind is None:
            return pages


@pytest.mark.parametrize("page_size", [0, 1, 7, len(ENTRIES) - 1, len(ENTRIES), 2**31 - 1])
@pytest.mark.parametrize("max_output", [None, 10**9])
def test_joined_pages_are_the_log(logged: Connection, page_size: int, max_output: int | None) -> None:
    pages = pages_of(logged, page_size, max_output)
    assert [entry for page in pages for entry in page] == ENTRIES == get_log(logged, LOUD)
    assert all(len(page) == page_size for page in pages[:-1])
    assert pages[-1]


@pytest.mark.parametrize("room", [1, 5_000, 20_000])
def test_a_page_ends_where_its_room_ends(
    logged: Connection, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry that is larger than a page has a page of its own."""
    monkeypatch.setattr(log_pages, "PageRoom", lambda items: PageRoom(items, room))
    pages = pages_of(logged, 0, None)
    assert [entry for page in pages for entry in page] == ENTRIES
    sizes = [sum(entry.ByteSize() for entry in page) for page in pages]
    assert all(size <= room or len(page) == 1 for size, page in zip(sizes, pages, strict=True))
    if room > 1:
        assert max(sizes) > room / 2


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 5, 999, 1_000, 1_001, 4_000, 12_000])
def test_output_beyond_the_limit_is_cut_between_characters(logged: Connection, limit: int) -> None:
    for entry, whole in zip(
        (entry for page in pages_of(logged, 0, limit) for entry in page), ENTRIES, strict=True
    ):
        in_memory = JobLog()
        in_memory.CopyFrom(whole)
        cut_output(in_memory, limit)
        assert entry == in_memory
        size = len(entry.stdout.encode()) + len(entry.stderr.encode())
        assert size <= limit
        assert size + entry.stdout_omitted + entry.stderr_omitted == _output(whole)
        assert whole.stdout.startswith(entry.stdout)
        assert whole.stderr.startswith(entry.stderr)
        if _output(whole) <= limit:
            assert entry == whole
        elif limit >= 8:
            for text, all_of_it in ((entry.stdout, whole.stdout), (entry.stderr, whole.stderr)):
                most = min(limit // 2, first_of_middle(len(all_of_it.encode())))
                assert len(text.encode()) > most - 4  # A character at most is too large for the rest.


def test_output_that_is_not_utf8_counts_as_it_is_shown(logged: Connection) -> None:
    """Programs other than ours may have written it. Each of its bytes becomes three."""
    row = {**log_row(a_log_entry(NOBODY, "aaaa"), None), "stdout": b"\xff" * 1_000}
    logged.execute(insert(job_log), [row])
    [entry] = get_log_page(logged, NOBODY, None, 0, 900).entries
    logged.rollback()
    assert set(entry.stdout) == {"\N{REPLACEMENT CHARACTER}"}
    assert len(entry.stdout.encode()) <= 900
    assert entry.stdout_omitted > 0


def test_a_request_without_entries_has_one_empty_page(logged: Connection) -> None:
    assert get_log_page(logged, QUIET, None, 0) == ([], None)
    behind_all = LogPosition("zzzz", 2**31 - 1)
    assert get_log_page(logged, LOUD, behind_all, 0) == ([], None)


def test_the_log_of_an_unknown_request_is_not_found(logged: Connection) -> None:
    behinds: list[Any] = [None, LogPosition("aaaa", 1)]
    for behind in behinds:
        with pytest.raises(NotFoundError, match=NOBODY):
            get_log_page(logged, NOBODY, behind, 0)


def _output(entry: JobLog) -> int:
    return len(entry.stdout.encode()) + len(entry.stderr.encode())
