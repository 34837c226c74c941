"""Requests that are read together, on each database: each is what it is if it is read alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from spincycle_grpc.errors import NotFoundError
from spincycle_grpc.structs import to_value
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_grpc.v1.request_pb2 import Request, RequestArg
from spincycle_grpc.wire import encode
from spincycle_server.database import transaction
from spincycle_server.store import Store, archived_chains, request_reads
from spincycle_server.store.request_reads import MAX_SMALL
from tests.databases import OPTIONS
from tests.store.samples import RUNNER, a_chain, a_request, create

one_store = pytest.mark.parametrize("store", ["none"], indirect=True)  # Nothing here is about commits.

ABSENT = "9vb2d3q0c7k5r1n8m4tg"


@pytest.fixture
def large_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes the requests that are read alone because they are large."""
    noted: list[str] = []
    read = request_reads._any_request

    def note(connection: Any, request_id: str, with_job_chain: bool) -> Request:
        noted.append(request_id)
        return read(connection, request_id, with_job_chain)

    monkeypatch.setattr(request_reads, "_any_request", note)
    return noted


async def stored(store: Store, *, text: str = "", jobs: int = 0) -> tuple[Request, JobChain]:
    """Stores a request with a text as an arg, and with some jobs more than three."""
    request = a_request(args=[RequestArg(name="text", given=True, value=to_value(text, "text"))])
    chain = a_chain(request.id)
    for number in range(jobs):
        chain.jobs[f"{number:04}"].CopyFrom(chain.jobs["aaaa"])
        chain.jobs[f"{number:04}"].id = f"{number:04}"
    await store.create_request(request, CreateRequest(type=request.type), chain, RUNNER)
    return request, chain


@one_store
@pytest.mark.parametrize("with_job_chain", [False, True])
async def test_each_request_is_whole_whatever_its_size(
    store: Store, large_reads: list[str], monkeypatch: pytest.MonkeyPatch, with_job_chain: bool
) -> None:
    small = await stored(store, text="é' \\ %s \n")
    made = [small, await stored(store, text="é" * MAX_SMALL), await stored(store, jobs=200)]
    monkeypatch.setattr(transaction, "MAX_ROW", 20_000)
    monkeypatch.setattr(archived_chains, "MAX_PAGE", 997)
    made.append(await stored(store, jobs=300))
    assert len(encode(made[2][1])) > MAX_SMALL
    found = await asyncio.gather(
        *(store.get_request(request.id, with_job_chain=with_job_chain) for request, _ in made)
    )
    for (request, chain), got in zip(made, found, strict=True):
        assert got.args == request.args
        assert got.HasField("job_chain") == with_job_chain
        assert not with_job_chain or got.job_chain == chain
    expected = {request.id for request, _ in (made[1:] if with_job_chain else made[1:2])}
    assert {*large_reads} == expected


@one_store
@pytest.mark.parametrize("length", [MAX_SMALL - 1, MAX_SMALL, MAX_SMALL + 1])
async def test_args_are_small_up_to_the_limit(store: Store, large_reads: list[str], length: int) -> None:
    empty = len(encode(RequestArg(name="text", given=True, value=to_value("", "text")))) + len("[]")
    request, _ = await stored(store, text="x" * (length - empty))
    assert (await store.get_request(request.id, with_job_chain=False)).args == request.args
    assert large_reads == ([request.id] if length > MAX_SMALL else [])


@one_store
async def test_a_request_that_does_not_exist_is_not_found_beside_others(store: Store) -> None:
    request, chain = await stored(store)
    found, missing = await asyncio.gather(
        store.get_request(request.id, with_job_chain=True),
        store.get_request(ABSENT, with_job_chain=True),
        return_exceptions=True,
    )
    assert isinstance(found, Request)
    assert found.job_chain == chain
    assert isinstance(missing, NotFoundError)
    assert ABSENT in str(missing)


@one_store
async def test_callers_of_one_request_get_messages_of_their_own(store: Store) -> None:
    request, _ = await stored(store)
    first, second = await asyncio.gather(
        *(store.get_request(request.id, with_job_chain=True) for _ in range(2))
    )
    first.ClearField("job_chain")
    assert second.HasField("job_chain")


async def test_a_text_that_is_too_long_for_an_id_does_not_disturb_others(small_packets: str) -> None:
    store = await Store.open(small_packets, OPTIONS)
    made = await create(store)
    long = "9" * 2_000_000
    first, missing, second, gone = await asyncio.gather(
        store.get_request(made.id, with_job_chain=False),
        store.get_request(long, with_job_chain=False),
        store.stamped_requests([made.id]),
        store.stamped_requests([long]),
        return_exceptions=True,
    )
    await store.close()
    assert isinstance(first, Request)
    assert isinstance(missing, NotFoundError)
    assert isinstance(second, dict)
    assert [*second] == [made.id]
    assert gone == {}
