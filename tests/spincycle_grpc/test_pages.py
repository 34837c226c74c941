"""Both clients read all pages of an answer, with one deadline for all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from spincycle_grpc import AsyncClient, Client, errors
from spincycle_grpc.retries import PageTime
from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_grpc.v1.job_pb2 import Job, JobChain, JobIds
from spincycle_grpc.v1.request_pb2 import Request, RequestArg
from tests.fake_manager import REQUEST_ID, FakeManager, entry, serving, stage

IDS = ("aaaa", "bbbb", "cccc")
CHAIN = JobChain(
    request_id=REQUEST_ID,
    jobs={job_id: Job(id=job_id) for job_id in IDS},
    adjacency_list={"aaaa": JobIds(ids=["bbbb"]), "bbbb": JobIds(ids=["cccc"])},
)


class PagingManager(FakeManager):
    """Has three items of everything, one a page. The token is the number of the page."""

    def _page(self, method: str, request: Any, context: Any) -> tuple[int, str]:
        self._called(method, request, context)
        number = int(request.page_token or 0)
        return number, str(number + 1) if number < len(IDS) - 1 else ""

    def _part(self, number: int) -> JobChain:
        job_id = IDS[number]
        following = {job_id: CHAIN.adjacency_list[job_id]} if job_id in CHAIN.adjacency_list else {}
        return JobChain(request_id=REQUEST_ID, jobs={job_id: CHAIN.jobs[job_id]}, adjacency_list=following)

    def Find(self, request: messages.FindRequest, context: Any) -> messages.FindResponse:
        number, token = self._page("Find", request, context)
        return messages.FindResponse(requests=[Request(id=IDS[number])], next_page_token=token)

    def GetLog(self, request: messages.GetLogRequest, context: Any) -> messages.GetLogResponse:
        number, token = self._page("GetLog", request, context)
        return messages.GetLogResponse(entries=[entry(number + 1)], next_page_token=token)

    def GetJobChain(self, request: messages.GetJobChainRequest, context: Any) -> messages.GetJobChainResponse:
        number, token = self._page("GetJobChain", request, context)
        return messages.GetJobChainResponse(job_chain=self._part(number), next_page_token=token)

    def Plan(self, request: messages.PlanRequest, context: Any) -> messages.PlanResponse:
        number, token = self._page("Plan", request, context)
        args = [] if number else [RequestArg(name="host")]
        planned = Request(type="nap", args=args, job_chain=self._part(number), total_jobs=3)
        return messages.PlanResponse(request=planned, next_page_token=token)

    def Get(self, request: messages.GetRequest, context: Any) -> messages.GetResponse:
        self._called("Get", request, context)
        if request.view == messages.REQUEST_VIEW_FULL:
            self.failures["GetLarge"] = [
                errors.FailedPreconditionError("too large", reason="RESPONSE_TOO_LARGE")
            ]
            self._called("GetLarge", request, context)
        return messages.GetResponse(request=stage(4))


@pytest.fixture
def manager() -> PagingManager:
    return PagingManager()


@pytest.fixture
def address(manager: PagingManager) -> Iterator[str]:
    with serving(manager) as address:
        yield address


def results_of_sync(address: str) -> dict[str, Any]:
    with Client(address) as client:
        return {
            "find": client.find(type="nap"),
            "iter_find": list(client.iter_find(type="nap")),
            "log": client.log(REQUEST_ID),
            "iter_log": list(client.iter_log(REQUEST_ID)),
            "job_chain": client.job_chain(REQUEST_ID),
            "get": client.get(REQUEST_ID),
            "plan": client.plan("nap"),
        }


def results_of_async(address: str) -> dict[str, Any]:
    async def read() -> dict[str, Any]:
        async with AsyncClient(address) as client:
            return {
                "find": await client.find(type="nap"),
                "iter_find": [request async for request in client.iter_find(type="nap")],
                "log": await client.log(REQUEST_ID),
                "iter_log": [one async for one in client.iter_log(REQUEST_ID)],
                "job_chain": await client.job_chain(REQUEST_ID),
                "get": await client.get(REQUEST_ID),
                "plan": await client.plan("nap"),
            }

    return asyncio.run(read())


@pytest.mark.parametrize("results_of", [results_of_sync, results_of_async])
def test_all_pages_are_read_and_joined(results_of: Any, manager: PagingManager, address: str) -> None:
    results = results_of(address)
    for name in ("find", "iter_find"):
        assert [request.id for request in results[name]] == list(IDS)
    for name in ("log", "iter_log"):
        assert [getattr(one, "try") for one in results[name]] == [1, 2, 3]
    assert results["job_chain"] == CHAIN
    assert results["get"].id == REQUEST_ID
    assert results["get"].job_chain == CHAIN
    assert results["plan"].job_chain == CHAIN
    assert [arg.name for arg in results["plan"].args] == ["host"]
    finds = manager.requests("Find")
    assert [request.page_token for request in finds] == ["", "1", "2"] * 2
    assert {request.filter.type for request in finds} == {"nap"}


def test_all_pages_together_have_one_deadline() -> None:
    now = time.monotonic()
    assert PageTime(40).left() == pytest.approx(40, abs=5)
    assert PageTime(40, now - 30).left() == pytest.approx(10, abs=5)
    assert PageTime(40, now - 50).left() == 0.001
    with pytest.raises(errors.InvalidArgumentError, match="positive"):
        PageTime(0)


def test_each_page_gets_what_is_left_of_the_deadline(manager: PagingManager, address: str) -> None:
    with Client(address, deadline=40) as client:
        client.find()
        client.find(deadline=20)
    limits = [asked.time_remaining for asked in manager.asked if asked.method == "Find"]
    assert all(20.5 < limit <= 40.5 for limit in limits[:3])
    assert all(limit <= 20.5 for limit in limits[3:])


def test_another_error_than_a_large_response_is_raised(manager: FakeManager, address: str) -> None:
    manager.failures["Get"] = [errors.FailedPreconditionError("no", reason="WRONG_STATE")]
    with Client(address) as client, pytest.raises(errors.FailedPreconditionError) as caught:
        client.get(REQUEST_ID)
    assert caught.value.reason == "WRONG_STATE"
