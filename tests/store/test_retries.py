"""Retries in the store: what they are made from, who is whose retry, and that only one of a family runs."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import delete, text

from spincycle_grpc.errors import ConflictError, FailedPreconditionError, NotFoundError
from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_server.store import CreatedBeforeError, IdempotencyKey, Store, request_reads, retries
from spincycle_server.store.schema import requests
from tests.store.samples import RUNNER, a_chain, a_log_entry, a_report, a_request, a_suspended_chain, create
from tests.store.test_requirements import plans_of

FAIL = state_pb2.STATE_FAIL


async def failed(store: Store) -> Request:
    """Returns a request of which the second job has failed."""
    request = await create(store)
    begun, tried = a_log_entry(request.id, "aaaa"), a_log_entry(request.id, state=FAIL)
    assert not await store.apply_reports(
        RUNNER.runner_id, [a_report(request.id, begun, tried, finished_jobs=1, ends=FAIL)]
    )
    return request


async def retry(
    store: Store, first: str, *, key: IdempotencyKey | None = None, waits: bool = True
) -> Request:
    """Stores a retry of which the first job is COMPLETE."""
    request = a_request(retry_of=first, finished_jobs=1)
    chain = a_chain(request.id)
    chain.jobs["aaaa"].state = state_pb2.STATE_COMPLETE
    chain.finished_jobs = 1
    await store.create_request(
        request, CreateRequest(type=request.type), chain, None if waits else RUNNER, key
    )
    return request


async def end(store: Store, request: Request) -> None:
    assert await store.stop_unassigned(request.id)


async def test_a_request_and_its_retry_name_each_other(store: Store) -> None:
    first = await failed(store)
    before = await store.get_request(first.id, with_job_chain=False)
    assert before.retried_by == ""
    second = await retry(store, first.id)
    found = await store.get_request(second.id, with_job_chain=True)
    assert (found.retry_of, found.retried_by, found.finished_jobs) == (first.id, "", 1)
    assert found.job_chain.jobs["aaaa"].state == state_pb2.STATE_COMPLETE
    after = await store.get_request(first.id, with_job_chain=False)
    assert after.retried_by == second.id
    after.ClearField("retried_by")
    assert after == before, "the first request has changed"


async def test_the_newest_retry_is_named(store: Store) -> None:
    first = await failed(store)
    await end(store, await retry(store, first.id))
    newest = await retry(store, first.id)
    assert (await store.get_request(first.id, with_job_chain=False)).retried_by == newest.id


async def test_a_retry_is_refused_while_another_one_has_not_ended(store: Store) -> None:
    first = await failed(store)
    for waits in (True, False):
        unfinished = await retry(store, first.id, waits=waits)
        with pytest.raises(FailedPreconditionError) as refused:
            await retry(store, first.id)
        assert (refused.value.reason, refused.value.request_id) == ("RETRY_NOT_ENDED", first.id)
        assert unfinished.id in refused.value.message
        if waits:
            await end(store, unfinished)


async def test_a_retry_is_refused_while_any_of_its_family_has_not_ended(store: Store) -> None:
    first = await failed(store)
    second = await retry(store, first.id)
    await end(store, second)
    third = await retry(store, second.id)
    for one in (first, second):
        with pytest.raises(FailedPreconditionError):
            await retry(store, one.id)
    await end(store, third)
    await retry(store, first.id)


async def test_the_retries_of_a_request_that_was_deleted_are_still_one_family(store: Store) -> None:
    first = await failed(store)
    siblings = []
    for _ in range(2):
        siblings.append(await retry(store, first.id))
        await end(store, siblings[-1])
    with store._engine.begin() as connection:
        connection.execute(delete(requests).where(requests.c.request_id == first.id))
    unfinished = await retry(store, siblings[0].id)
    for one in siblings:
        with pytest.raises(FailedPreconditionError) as refused:
            await retry(store, one.id)
        assert refused.value.reason == "RETRY_NOT_ENDED"
    await end(store, unfinished)
    results = await asyncio.gather(*(retry(store, one.id) for one in siblings * 3), return_exceptions=True)
    assert sum(isinstance(one, Request) for one in results) == 1
    with pytest.raises(NotFoundError):
        await retry(store, first.id)


async def test_of_retries_at_the_same_time_one_is_stored(store: Store) -> None:
    first = await failed(store)
    second = await retry(store, first.id)
    await end(store, second)
    results = await asyncio.gather(
        *(retry(store, one) for one in (first.id, second.id) * 5), return_exceptions=True
    )
    stored = [one for one in results if isinstance(one, Request)]
    assert len(stored) == 1
    assert all(
        isinstance(one, FailedPreconditionError) and one.reason == "RETRY_NOT_ENDED"
        for one in results
        if one is not stored[0]
    )


async def test_retries_of_different_requests_are_stored_at_the_same_time(store: Store) -> None:
    firsts = [await failed(store) for _ in range(5)]
    seconds = await asyncio.gather(*(retry(store, first.id) for first in firsts))
    for first, second in zip(firsts, seconds, strict=True):
        assert (await store.get_request(first.id, with_job_chain=False)).retried_by == second.id


async def test_calls_with_one_key_store_one_retry_at_the_same_time_or_later(store: Store) -> None:
    first = await failed(store)
    key = IdempotencyKey.of("finch", "key", b"retry")
    results = await asyncio.gather(
        *(retry(store, first.id, key=key) for _ in range(5)), return_exceptions=True
    )
    (stored,) = [one for one in results if isinstance(one, Request)]
    others = [one for one in results if one is not stored]
    assert all(isinstance(one, CreatedBeforeError) and one.request_id == stored.id for one in others)
    with pytest.raises(CreatedBeforeError) as later:
        await retry(store, first.id, key=key)
    assert later.value.request_id == stored.id
    with pytest.raises(ConflictError) as reused:
        await retry(store, first.id, key=IdempotencyKey.of("finch", "key", b"another"))
    assert reused.value.reason == "IDEMPOTENCY_KEY_REUSED"


async def test_a_refused_retry_does_not_use_up_its_key(store: Store) -> None:
    first = await failed(store)
    key = IdempotencyKey.of("finch", "key", b"retry")
    unfinished = await retry(store, first.id)
    with pytest.raises(FailedPreconditionError):
        await retry(store, first.id, key=key)
    await end(store, unfinished)
    stored = await retry(store, first.id, key=key)
    assert (await store.get_request(first.id, with_job_chain=False)).retried_by == stored.id


async def test_a_request_that_does_not_exist_cannot_be_retried(store: Store) -> None:
    with pytest.raises(NotFoundError) as refused:
        await retry(store, a_request().id)
    assert refused.value.reason == "REQUEST_NOT_FOUND"
    with pytest.raises(NotFoundError):
        await store.retry_source(a_request().id)


async def test_a_retry_is_made_from_the_message_the_chain_and_the_tries(store: Store) -> None:
    first = await failed(store)
    source = await store.retry_source(first.id)
    assert source.create_request == CreateRequest(type=first.type, user=first.user)
    assert source.job_chain == a_chain(first.id)
    assert [tried.entry.job_id for _, tried in source.tries] == ["aaaa", "bbbb"]
    assert source.is_known


async def test_a_record_with_tries_of_an_original_is_not_known(store: Store) -> None:
    first = await failed(store)
    await store.record_log(a_log_entry(first.id, "cccc"))
    assert not (await store.retry_source(first.id)).is_known


async def test_the_chain_of_a_suspended_retry_is_kept_as_of_any_request(store: Store) -> None:
    first = await failed(store)
    second = await retry(store, first.id, waits=False)
    suspended = a_suspended_chain(second.id)
    assert not await store.apply_reports(
        RUNNER.runner_id, [a_report(second.id, finished_jobs=1, ends=suspended)]
    )
    found = await store.get_request(second.id, with_job_chain=False)
    assert State(found.state) is State.SUSPENDED
    assert await store.get_suspended(second.id) is not None


async def test_retries_of_a_request_are_found_by_an_index(store: Store) -> None:
    first = await failed(store)
    second = await retry(store, first.id)
    await asyncio.gather(*(create(store) for _ in range(300)))
    if store._engine.dialect.name == "postgresql":
        # Otherwise the plan depends on whether autovacuum has counted the rows yet.
        with store._engine.begin() as connection:
            connection.execute(text("ANALYZE requests"))
    got = [
        *plans_of(store._engine, lambda connection: request_reads._any_request(connection, first.id, False)),
        *plans_of(
            store._engine,
            lambda connection: connection.execute(
                request_reads._SMALL[False].statement(store._engine.dialect.name), {"key": first.id}
            ).all(),
        ),
    ]
    assert len(got) == 2
    of_retries = plans_of(store._engine, lambda connection: retries._unfinished(connection, first.id))
    assert len(of_retries) == 1, f"retry {second.id} has not ended"
    for plan in (*got, *of_retries):
        # MariaDB reads a maximum from an index while it plans.
        assert "requests_retry_of" in plan or "Select tables optimized away" in plan
