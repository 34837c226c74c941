"""Chains too long for one value are stored in pages, and not stored again when they are suspended."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from spincycle_grpc.errors import NotFoundError
from spincycle_grpc.state import State
from spincycle_grpc.v1.job_pb2 import JobChain, SuspendedJobChain
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.v1.runner_reports_pb2 import ChainReport
from spincycle_grpc.wire import encode
from spincycle_server.database import transaction
from spincycle_server.store import Store, archived_chains
from spincycle_server.store.requirement_rows import derived_requirement
from spincycle_server.store.schema import job_chain_pages, request_archives, suspended_job_chains
from tests.databases import OPTIONS, engine_of
from tests.store.samples import RUNNER, a_chain, a_request, a_suspended_chain, create

TEXTS = ("plain", "'quoted' \\ \\n \x00 %s", "é€😀", '"</script>"')
"""Texts of args, whose characters become several bytes or are escaped, and fall on the ends of pages."""


@dataclass
class Long:
    """A request whose chain is stored in pages."""

    request: Request
    chain: JobChain


def long_chain(request_id: str, jobs: int) -> JobChain:
    chain = a_chain(request_id)
    for number in range(jobs):
        job = chain.jobs[f"{number:04}"]
        job.id, job.type, job.name = f"{number:04}", f"type-{number % 3}", f"job {number}"
        job.args.fields["text"].string_value = TEXTS[number % len(TEXTS)] * (number % 7)
    return chain


async def stored(store: Store, jobs: int) -> Long:
    request = a_request()
    chain = long_chain(request.id, jobs)
    await store.create_request(request, CreateRequest(type=request.type), chain, RUNNER)
    return Long(request, chain)


@contextlib.contextmanager
def connected(url: str) -> Iterator[Connection]:
    engine = engine_of(url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def lengths(url: str, request_id: str) -> tuple[int, int, int]:
    """Returns the bytes in the archive and in all pages, and the number of pages."""
    archived = select(func.length(request_archives.c.job_chain)).where(
        request_archives.c.request_id == request_id
    )
    paged = select(func.sum(func.length(job_chain_pages.c.page)), func.count()).where(
        job_chain_pages.c.request_id == request_id
    )
    with connected(url) as connection:
        bytes_in_pages, pages = connection.execute(paged).one()
        return int(connection.scalar(archived) or 0), int(bytes_in_pages or 0), pages


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes rows too long that have more than 20,000 bytes. Characters are split between pages."""
    monkeypatch.setattr(transaction, "MAX_ROW", 20_000)
    monkeypatch.setattr(archived_chains, "MAX_PAGE", 997)


@pytest.mark.usefixtures("small_pages")
async def test_a_chain_in_pages_is_read_as_it_was_created(store: Store, migrated_url: str) -> None:
    long = await stored(store, 500)
    short = await create(store)
    size = len(encode(long.chain))
    assert lengths(migrated_url, long.request.id) == (0, size, -(-size // 997))
    assert lengths(migrated_url, short.id)[1:] == (0, 0)
    for request_id, chain in ((long.request.id, long.chain), (short.id, a_chain(short.id))):
        assert await store.get_job_chain(request_id) == chain
        assert (await store.get_request(request_id, with_job_chain=True)).job_chain == chain
        assert not (await store.get_request(request_id, with_job_chain=False)).HasField("job_chain")
        assert (await store.retry_source(request_id)).job_chain == chain
        assert (await store.get_record(request_id)).job_chain == chain
    await store.check_job(long.request.id, "0499")
    with pytest.raises(NotFoundError):
        await store.check_job(long.request.id, "0500")
    with connected(migrated_url) as connection:
        requirement = derived_requirement(connection, long.request.id)
    assert requirement.types == {"noop", "nap", "type-0", "type-1", "type-2"}


@pytest.mark.usefixtures("small_pages")
async def test_a_suspended_chain_that_is_too_long_continues_from_its_record(
    store: Store, migrated_url: str
) -> None:
    long = await stored(store, 500)
    await store.suspend(
        long.request.id, SuspendedJobChain(request_id=long.request.id, job_chain=long.chain), epoch=1
    )
    with connected(migrated_url) as connection:
        assert connection.execute(select(suspended_job_chains.c.suspended_job_chain)).scalars().all() == [b""]
    assert State((await store.get_request(long.request.id, with_job_chain=False)).state) is State.SUSPENDED
    assert await store.get_suspended(long.request.id) is None
    record = await store.get_record(long.request.id)
    assert (record.job_chain, record.base) == (long.chain, None)
    # As after a chain that was stored, the timeout counts.
    assert await store.fail_unresumed(3600) == []
    assert await store.fail_unresumed(-1) == [long.request.id]


@pytest.mark.usefixtures("small_pages")
async def test_a_suspended_chain_of_an_original_stays_if_its_next_form_is_too_long(
    store: Store, migrated_url: str
) -> None:
    """The job log lacks what the original's tries have left, so the record needs the chain."""
    request = await create(store)
    await store.suspend(request.id, a_suspended_chain(request.id))
    before = await store.get_suspended(request.id)
    assignment = await store.assign(request.id, RUNNER, expected_state=State.SUSPENDED)
    assert assignment is not None
    long = SuspendedJobChain(request_id=request.id, job_chain=long_chain(request.id, 500))
    report = ChainReport(assignment=assignment, suspended=long, finished_jobs=1)
    assert await store.apply_reports(RUNNER.runner_id, [report]) == []
    assert State((await store.get_request(request.id, with_job_chain=False)).state) is State.SUSPENDED
    record = await store.get_record(request.id)
    assert (record.base, await store.get_suspended(request.id)) == (before, before)
    assert await store.fail_unresumed(3600) == []


async def test_a_chain_that_is_longer_than_a_packet_of_mariadb_is_stored(small_packets: str) -> None:
    store = await Store.open(small_packets, OPTIONS)
    try:
        long = await stored(store, 9_000)
        assert len(encode(long.chain)) > 1024 * 1024
        assert lengths(small_packets, long.request.id)[0] == 0
        assert await store.get_job_chain(long.request.id) == long.chain
        await store.suspend(
            long.request.id, SuspendedJobChain(request_id=long.request.id, job_chain=long.chain), epoch=1
        )
        assert await store.get_suspended(long.request.id) is None
    finally:
        await store.close()
