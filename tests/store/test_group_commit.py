"""The group-commit writer on each database: full queues, and batches with a failing write."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from spincycle_grpc.errors import NotFoundError, ResourceExhaustedError, UnavailableError
from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_server.database.transaction import Transaction
from spincycle_server.store import Store
from spincycle_server.store import group_commit as writer_module
from spincycle_server.store.creation import Created
from spincycle_server.store.group_commit import GroupCommitWriter
from spincycle_server.store.write import Write
from tests.databases import OPTIONS
from tests.limits import STEP
from tests.store.samples import (
    OTHER_RUNNER,
    RUNNER,
    a_chain,
    a_log_entry,
    a_report,
    a_request,
    create,
    live_now,
    waiting_ids,
)


@dataclass(slots=True)
class Hold(Write):
    """Changes nothing, and blocks its batch until `let` is set."""

    reached: threading.Event = field(default_factory=threading.Event)
    let: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def apply_all(cls, transaction: Transaction, writes: Sequence[Hold]) -> Sequence[None]:
        for write in writes:
            write.reached.set()
            assert write.let.wait(STEP)
        return [None] * len(writes)


@contextlib.asynccontextmanager
async def busy(writer: GroupCommitWriter) -> AsyncIterator[None]:
    """Keeps a writer busy. Writes that arrive meanwhile are done in one batch afterwards."""
    hold = Hold()
    holding = asyncio.create_task(writer.write(hold))
    assert await asyncio.to_thread(hold.reached.wait, STEP)
    try:
        yield
    finally:
        hold.let.set()
        await holding


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    store = await Store.open(url, OPTIONS)
    yield store
    await store.close()


async def put(*writes: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    """Starts writes in order, and returns when they are queued or refused."""
    tasks = [asyncio.create_task(write) for write in writes]
    await asyncio.sleep(0)
    return tasks


async def done_together(
    writer: GroupCommitWriter, *writes: Coroutine[Any, Any, Any]
) -> tuple[list[Any], list[int]]:
    """Does writes as one batch. Returns their outcomes, and the sizes of batches that failed."""
    with capture_logs() as logs:
        async with busy(writer):
            tasks = await put(*writes)
        async with asyncio.timeout(STEP):
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    return outcomes, [log["writes"] for log in logs if log["event"].startswith("batch failed")]


def create_as(request: Request) -> CreateRequest:
    return CreateRequest(type=request.type, user=request.user)


async def test_writes_of_runners_are_accepted_while_those_of_users_are_refused(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_WAITING", 3)
    monkeypatch.setattr(writer_module, "RESERVED", 3)
    async with opened(migrated_url) as store:
        await store.renew_runner(OTHER_RUNNER, 3600, draining=False)
        made = [await create(store) for _ in range(5)]
        async with busy(store._writer):
            users = await put(*(store.request_stop(one.id) for one in made[:3]))
            with pytest.raises(ResourceExhaustedError) as refused:
                await store.request_stop(made[3].id)
            assert refused.value.reason == "TOO_MANY_WRITES"

            report = a_report(made[4].id, a_log_entry(made[4].id), ends=state_pb2.STATE_COMPLETE)
            runners = await put(
                store.renew_runner(RUNNER, 3600, draining=False),
                store.apply_reports(RUNNER.runner_id, [report]),
                store.remove_runner(OTHER_RUNNER.runner_id),
            )
            # The reserved places are limited too.
            with pytest.raises(ResourceExhaustedError) as refused:
                await store.renew_runner(RUNNER, 3600, draining=False)
            assert refused.value.reason == "TOO_MANY_WRITES"
            with pytest.raises(ResourceExhaustedError):
                await store.request_stop(made[3].id)
            assert not any(task.done() for task in (*users, *runners))
        async with asyncio.timeout(STEP):
            assert await asyncio.gather(*users) == [True, True, True]
            _, refusals, _ = await asyncio.gather(*runners)
        assert refusals == []
        assert [runner.runner_id for runner, _ in await live_now(store)] == [RUNNER.runner_id]
        found = await store.get_request(made[4].id, with_job_chain=False)
        assert State(found.state) is State.COMPLETE
        # The refused write has changed nothing, and is accepted when it is repeated.
        assert not (await store.get_record(made[3].id)).stop_requested
        assert await store.request_stop(made[3].id)


async def test_creations_have_their_own_queue_except_on_sqlite(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_WAITING", 1)
    async with opened(migrated_url) as store:
        made = await create(store)
        async with busy(store._writer):
            [waiting] = await put(store.request_stop(made.id))
            with pytest.raises(ResourceExhaustedError):
                await store.request_stop(made.id)
            if migrated_url.startswith("sqlite"):
                with pytest.raises(ResourceExhaustedError) as refused:
                    await create(store)
                assert refused.value.reason == "TOO_MANY_WRITES"
            else:
                async with asyncio.timeout(STEP):
                    await create(store)
        assert await waiting


async def test_a_write_whose_row_exists_fails_alone_in_its_batch(store: Store) -> None:
    there = await create(store)
    before, again, after = a_request(), a_request(id=there.id, user="owl"), a_request()
    results, fell_apart = await done_together(
        store._creator,
        *(
            store.create_request(one, create_as(one), a_chain(one.id), RUNNER)
            for one in (before, again, after)
        ),
    )
    assert fell_apart == [3]
    assert [result.assignment.request_id for result in (results[0], results[2])] == [before.id, after.id]
    assert isinstance(results[1], UnavailableError)
    assert results[1].reason == "DATABASE_UNAVAILABLE"
    for one in (there, before, after):
        found = await store.get_request(one.id, with_job_chain=True)
        assert (found.user, found.args) == ("finch", one.args)
        assert found.job_chain == a_chain(one.id)


async def test_one_of_two_writes_of_the_same_row_in_a_batch_succeeds(store: Store) -> None:
    first = a_request(user="finch")
    second, other = a_request(id=first.id, user="owl"), a_request()
    results, fell_apart = await done_together(
        store._creator,
        *(store.create_request(one, create_as(one), a_chain(one.id), None) for one in (first, second, other)),
    )
    assert fell_apart == [3]
    assert (results[0], results[2]) == (Created(None), Created(None))
    assert isinstance(results[1], UnavailableError)
    assert (await store.get_request(first.id, with_job_chain=False)).user == "finch"
    assert sorted(await waiting_ids(store)) == sorted([first.id, other.id])


async def test_a_refused_write_does_not_split_its_batch(store: Store) -> None:
    """A refused write has only read, so there is nothing to roll back."""
    made = [await create(store) for _ in range(2)]
    results, fell_apart = await done_together(
        store._writer, *(store.request_stop(one) for one in (made[0].id, "unknown", made[1].id))
    )
    assert not fell_apart
    assert (results[0], results[2]) == (True, True)
    assert isinstance(results[1], NotFoundError)
