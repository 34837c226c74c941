"""Calls of FollowOutput, on a real store."""

from __future__ import annotations

import asyncio

import pytest

from spincycle_grpc.errors import NotFoundError, ResourceExhaustedError
from spincycle_grpc.state import State
from spincycle_grpc.v1.request_manager_pb2 import FollowOutputRequest, FollowOutputResponse
from spincycle_server.request_manager.output_followers import OutputFollowers
from spincycle_server.request_manager.runners import Runners
from spincycle_server.store import Store
from tests.limits import STEP
from tests.store.samples import a_log_entry, create


def asking(request_id: str, number: int = 0, **fields: object) -> FollowOutputRequest:
    return FollowOutputRequest(
        **{"request_id": request_id, "job_id": "bbbb", "try": number, **fields}  # type: ignore[arg-type]
    )


async def answers(store: Store, request: FollowOutputRequest) -> list[FollowOutputResponse]:
    async with asyncio.timeout(STEP):
        return [one async for one in OutputFollowers(store, Runners(store), limit=1).follow(request)]


async def test_a_finished_try_has_its_text_and_its_end(store: Store) -> None:
    made = await create(store)
    await store.record_log(
        a_log_entry(made.id, stdout="out\n", stderr="err\n", exit=1, state=State.FAIL.value)
    )
    out, err, end = await answers(store, asking(made.id))
    assert (out.text.text, err.text.text) == ("out\n", "err\n")
    assert (end.end.state, end.end.exit, getattr(end.end, "try")) == (State.FAIL.value, 1, 1)


async def test_a_caller_goes_on_after_each_cursor(store: Store) -> None:
    made = await create(store)
    await store.record_log(a_log_entry(made.id, stdout="out\n", stderr="err\n"))
    messages = await answers(store, asking(made.id))
    for read, message in enumerate(messages[:-1], start=1):
        assert await answers(store, asking(made.id, cursor=message.cursor)) == messages[read:]
    assert await answers(store, asking(made.id, cursor=messages[-1].cursor)) == messages[-1:]


async def test_try_0_is_the_newest(store: Store) -> None:
    made = await create(store)
    for number in (1, 2):
        await store.record_log(a_log_entry(made.id, number=number, stdout=f"{number}"))
    assert [one.text.text for one in await answers(store, asking(made.id))][:-1] == ["2"]
    assert [one.text.text for one in await answers(store, asking(made.id, 1))][:-1] == ["1"]


async def test_a_try_that_has_not_begun_is_awaited(store: Store) -> None:
    made = await create(store)
    asked = asyncio.ensure_future(answers(store, asking(made.id, 2)))
    await store.record_log(a_log_entry(made.id, number=1, stdout="1"))
    await store.record_log(a_log_entry(made.id, number=2, stdout="2"))
    assert [one.text.text for one in await asked][:-1] == ["2"]


async def test_a_try_that_a_finished_request_did_not_run_is_not_found(store: Store) -> None:
    made = await create(store)
    asked = asyncio.ensure_future(answers(store, asking(made.id)))
    await store.finish(made.id, State.STOPPED, 1, 0)
    with pytest.raises(NotFoundError) as raised:
        await asked
    assert (raised.value.reason, raised.value.request_id) == ("JOB_NOT_FOUND", made.id)


async def test_unknown_jobs_and_requests_are_not_found_at_once(store: Store) -> None:
    made = await create(store)
    for request, reason in (
        (FollowOutputRequest(request_id=made.id, job_id="zzzz"), "JOB_NOT_FOUND"),
        (FollowOutputRequest(request_id="nosuch", job_id="bbbb"), "REQUEST_NOT_FOUND"),
    ):
        with pytest.raises(NotFoundError) as raised:
            await answers(store, request)
        assert raised.value.reason == reason


async def test_more_callers_than_the_limit_are_refused_until_one_ends(store: Store) -> None:
    made = await create(store)
    await store.record_log(a_log_entry(made.id, stdout="out"))
    followers = OutputFollowers(store, Runners(store), limit=1)
    first = followers.follow(asking(made.id))
    await anext(first)
    with pytest.raises(ResourceExhaustedError) as raised:
        await anext(followers.follow(asking(made.id)))
    assert raised.value.reason == "TOO_MANY_FOLLOWERS"
    await first.aclose()
    assert await anext(followers.follow(asking(made.id)))
