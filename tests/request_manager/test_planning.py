"""Plans: whole over HTTP, and in pages of one plan over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from spincycle_grpc.errors import FailedPreconditionError
from spincycle_grpc.structs import to_struct
from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_server.identity.access import AccessLists
from spincycle_server.identity.permissions import Permissions
from spincycle_server.request_manager import planning
from spincycle_server.request_manager.paged_chains import PagedChains
from spincycle_server.store import Store
from tests.request_manager.test_request_pages import HTTP, PLAN_ARGS, joined, pages
from tests.request_manager.test_service import FINCH, SPECS, Manager, managing


@pytest.fixture
async def manager(store: Store) -> AsyncIterator[Manager]:
    async with managing(store, Permissions(AccessLists(SPECS))) as manager:
        yield manager


async def test_joined_pages_of_a_plan_are_one_plan(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if a server that does not remember the first page returns the next ones."""
    for is_remembered in (True, False):
        if not is_remembered:
            monkeypatch.setattr(PagedChains, "keep", lambda *_: None)
        call = messages.PlanRequest(type="nap", args=PLAN_ARGS, page_size=1)
        plans = [page.request for page in await pages(manager.service.Plan, call)]
        chain = joined([plan.job_chain for plan in plans])
        assert {plan.total_jobs for plan in plans} == {len(chain.jobs)} == {len(plans)}
        assert set(chain.adjacency_list) < set(chain.jobs)
        assert [len(plan.args) for plan in plans] == [1] + [0] * (len(plans) - 1)
        assert {(plan.type, plan.user) for plan in plans} == {("nap", "finch")}
    whole = (await manager.service.Plan(messages.PlanRequest(type="nap", args=PLAN_ARGS), HTTP)).request
    assert len(whole.job_chain.jobs) == whole.total_jobs == len(plans)


async def test_a_plan_that_changes_between_two_pages_is_refused(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PagedChains, "keep", lambda *_: None)
    call = messages.PlanRequest(type="nap", args=PLAN_ARGS, page_size=1)
    call.page_token = (await manager.service.Plan(call, FINCH)).next_page_token
    monkeypatch.setattr(planning, "_digest", lambda _: "0" * 24)
    with pytest.raises(FailedPreconditionError, match="plan again") as caught:
        await manager.service.Plan(call, FINCH)
    assert caught.value.reason == "PLAN_CHANGED"


async def test_each_plan_has_other_job_ids(manager: Manager) -> None:
    call = messages.PlanRequest(type="nap", args=PLAN_ARGS)
    first, second = [(await manager.service.Plan(call, FINCH)).request.job_chain for _ in range(2)]
    assert set(first.jobs) != set(second.jobs)


async def test_args_that_leave_no_room_for_jobs_are_left_out(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "_FIRST_PAGE", 1000)
    for size, is_shown in ((900, True), (1100, False)):
        call = messages.PlanRequest(type="nap", args=to_struct({"host": "x" * size}))
        planned = (await manager.service.Plan(call, FINCH)).request
        assert (len(planned.args) == 1, planned.args_omitted) == (is_shown, not is_shown)
        assert len((await manager.service.Plan(call, HTTP)).request.args) == 1
