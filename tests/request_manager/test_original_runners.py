"""Requests that runners of an original still run: stopping them, and listing their jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import update

from spincycle_grpc.errors import UnavailableError
from spincycle_grpc.state import State
from spincycle_grpc.v1.status_pb2 import StatusFilter
from spincycle_server.request_manager import original_runners as original_runners_module
from spincycle_server.request_manager.original_runners import OriginalRunners
from spincycle_server.request_manager.request_stopper import RequestStopper
from spincycle_server.store import Store
from spincycle_server.store.schema import ORIGINAL, requests
from tests.limits import STEP
from tests.ports import free_port
from tests.request_manager.doubles import WillingRunners, make_dispatcher, state_of
from tests.request_manager.original_server import OriginalServer, original_server
from tests.store.samples import create


@pytest.fixture
async def server() -> AsyncIterator[OriginalServer]:
    async with original_server() as server:
        yield server


@pytest.fixture
async def stopper(store: Store) -> AsyncIterator[RequestStopper]:
    runners = WillingRunners(store)
    dispatcher = await make_dispatcher(store, runners)
    yield RequestStopper(store, runners, dispatcher, OriginalRunners(store))
    await dispatcher.close()
    await runners.close()


async def run_by_original(store: Store, url: str) -> str:
    """Returns the id of a new request that the original's runner at a URL runs."""
    request = await create(store, None)
    with store._engine.begin() as connection:
        connection.execute(
            update(requests)
            .where(requests.c.request_id == request.id)
            .values(state=State.RUNNING, jr_url=url, runner_id=ORIGINAL)
        )
    return request.id


async def test_a_stop_is_passed_on_and_the_runner_ends_the_request(
    store: Store, stopper: RequestStopper, server: OriginalServer
) -> None:
    request_id = await run_by_original(store, server.url)
    await stopper.stop(request_id)
    assert await state_of(store, request_id) is State.RUNNING
    [head] = server.received
    assert head.startswith(f"PUT /api/v1/job-chains/{request_id}/stop HTTP/1.1\r\n")
    await store.finish(request_id, State.STOPPED, 1_800_000_000_000_000, 1)
    await stopper.stop(request_id)
    assert len(server.received) == 1


async def test_a_request_that_the_runner_does_not_have_is_stopped_at_once(
    store: Store, stopper: RequestStopper, server: OriginalServer
) -> None:
    server.status = 404
    request_id = await run_by_original(store, server.url)
    await stopper.stop(request_id)
    assert await state_of(store, request_id) is State.STOPPED


@pytest.mark.parametrize("url", ["gone", ""])
async def test_a_request_whose_runner_is_gone_is_stopped_at_once(
    store: Store, stopper: RequestStopper, url: str
) -> None:
    request_id = await run_by_original(store, url and f"http://127.0.0.1:{free_port()}")
    await stopper.stop(request_id)
    assert await state_of(store, request_id) is State.STOPPED


@pytest.mark.parametrize("status", [302, 401, 500, 503])
async def test_a_runner_that_does_not_confirm_the_stop_keeps_the_request(
    store: Store, stopper: RequestStopper, server: OriginalServer, status: int
) -> None:
    server.status = status
    request_id = await run_by_original(store, server.url)
    with pytest.raises(UnavailableError, match=f"did not confirm the stop: status {status}") as caught:
        await stopper.stop(request_id)
    assert (caught.value.reason, caught.value.request_id) == ("ORIGINAL_RUNNER_SILENT", request_id)
    assert await state_of(store, request_id) is State.RUNNING
    assert (await store.get_record(request_id)).stop_requested


async def test_a_silent_runner_holds_a_stop_only_for_a_while(
    store: Store,
    stopper: RequestStopper,
    server: OriginalServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(original_runners_module, "STOP_TIMEOUT", 0.1)
    server.is_silent = True
    request_id = await run_by_original(store, server.url)
    with pytest.raises(UnavailableError, match="no answer within"):
        await stopper.stop(request_id)


async def test_the_jobs_of_an_originals_runner_are_listed(store: Store, server: OriginalServer) -> None:
    mine, other = [await run_by_original(store, server.url) for _ in range(2)]
    ended = await create(store)
    originals = OriginalRunners(store)
    assert await originals.running(StatusFilter()) == ([], [])
    await originals.refresh()
    # It lists what it likes. Only its own requests count.
    server.runs(
        {"requestId": mine, "jobId": "bbbb", "name": "nap", "startedAt": 7, "state": 2, "status": "naps"},
        {"requestId": ended.id, "jobId": "bbbb", "startedAt": 8, "state": 2},
    )
    request_ids, [job] = await originals.running(StatusFilter())
    assert set(request_ids) == {mine, other}
    assert (job.request_id, job.job_id, job.status, job.started_at) == (mine, "bbbb", "naps", 7)
    assert await originals.running(StatusFilter(request_id=other)) == ([other], [])
    assert await originals.running(StatusFilter(request_id=ended.id)) == ([], [])
    assert len(server.received) == 2


@pytest.mark.parametrize("body", [b"", b"{", b'{"a": 1}', b"null", b"[1]"])
async def test_a_runner_that_answers_nonsense_hides_no_request(
    store: Store, server: OriginalServer, body: bytes
) -> None:
    request_id = await run_by_original(store, server.url)
    originals = OriginalRunners(store)
    await originals.refresh()
    server.body = body
    assert await originals.running(StatusFilter()) == ([request_id], [])
    server.status = 500
    assert await originals.running(StatusFilter()) == ([request_id], [])


async def test_at_most_so_many_runners_are_asked(
    store: Store, server: OriginalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(original_runners_module, "MAX_RUNNERS", 2)
    for number in range(4):
        await run_by_original(store, f"{server.url}/{number}")
    originals = OriginalRunners(store)
    await originals.refresh()
    assert len((await originals.running(StatusFilter()))[0]) == 4
    assert len(server.received) == 2


async def test_the_requests_are_read_again_and_again(store: Store) -> None:
    originals = OriginalRunners(store, interval=0.01)
    looking = asyncio.create_task(originals.run())
    request_id = await run_by_original(store, "")
    async with asyncio.timeout(STEP):
        while not (await originals.running(StatusFilter()))[0]:  # noqa: ASYNC110 (no event tells)
            await asyncio.sleep(0.01)
    assert await originals.running(StatusFilter()) == ([request_id], [])
    looking.cancel()
