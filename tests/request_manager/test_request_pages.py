"""Pages of Find, GetLog, GetJobChain and Plan as the servicer answers them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from spincycle_grpc.errors import InvalidArgumentError, SpinCycleError
from spincycle_grpc.structs import to_struct
from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_grpc.v1.request_pb2 import RequestFilter
from spincycle_server.identity.access import AccessLists
from spincycle_server.identity.permissions import Permissions
from spincycle_server.request_manager import request_pages
from spincycle_server.request_manager.page_tokens import page_token
from spincycle_server.request_manager.paged_chains import PagedChains
from spincycle_server.store import Store
from tests.request_manager.test_service import FINCH, SPECS, Manager, calls_as, managing
from tests.store.samples import a_log_entry, create

HTTP = FINCH._replace(transport="http")
PLAN_ARGS = to_struct({"host": "db2"})


@pytest.fixture
async def manager(store: Store) -> AsyncIterator[Manager]:
    async with managing(store, Permissions(AccessLists(SPECS))) as manager:
        yield manager


async def pages(method: Callable[..., Any], call: Any, context: Any = FINCH) -> list[Any]:
    """Returns all pages of a call."""
    answers: list[Any] = []
    while True:
        answers.append(await method(call, context))
        if not answers[-1].next_page_token:
            return answers
        call.page_token = answers[-1].next_page_token


async def reason_of(method: Callable[..., Any], call: Any, context: Any = FINCH) -> str:
    with pytest.raises(SpinCycleError) as caught:
        await method(call, context)
    assert isinstance(caught.value, InvalidArgumentError)
    return caught.value.reason


async def test_find_pages_respect_limit_and_offset_of_the_filter(manager: Manager) -> None:
    made = [await create(manager.store) for _ in range(9)]
    in_order = [request.id for request in await manager.store.find_requests(RequestFilter())]
    assert sorted(in_order) == sorted(request.id for request in made)
    for context in (FINCH, HTTP):
        call = messages.FindRequest(filter=RequestFilter(limit=6, offset=2), page_size=4)
        found = await pages(manager.service.Find, call, context)
        assert [[one.id for one in page.requests] for page in found] == [in_order[2:6], in_order[6:8]]


async def test_without_paging_http_gets_everything_and_grpc_a_page(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = await manager.create()
    for number in range(1, 4):
        await manager.store.record_log(a_log_entry(created.id, "aaaa", number, stdout="x" * 1000))
    monkeypatch.setattr(request_pages, "MAX_OUTPUT", 600)
    call = messages.GetLogRequest(request_id=created.id)
    whole = await manager.service.GetLog(call, HTTP)
    assert [len(entry.stdout) for entry in whole.entries] == [1000] * 3
    cut = await manager.service.GetLog(call, FINCH)
    assert [len(entry.stdout) + entry.stdout_omitted for entry in cut.entries] == [1000] * 3
    assert max(len(entry.stdout) for entry in cut.entries) <= 600
    paged = messages.GetLogRequest(request_id=created.id, page_size=2)
    answers = await pages(manager.service.GetLog, paged, HTTP)
    assert [entry for page in answers for entry in page.entries] == list(whole.entries)
    assert [len(page.entries) for page in answers] == [2, 1]


async def test_joined_pages_of_a_job_chain_are_the_chain(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = await manager.create()
    chain = await manager.store.get_job_chain(created.id)
    for is_remembered in (True, False):
        if not is_remembered:
            monkeypatch.setattr(PagedChains, "keep", lambda *_: None)
        call = messages.GetJobChainRequest(request_id=created.id, page_size=1)
        parts = [page.job_chain for page in await pages(manager.service.GetJobChain, call)]
        assert [len(part.jobs) for part in parts] == [1] * len(chain.jobs)
        assert joined(parts) == chain


async def test_tokens_of_other_calls_are_refused(manager: Manager) -> None:
    service = manager.service
    first, second = [await manager.create() for _ in range(2)]
    for request in (first, second):
        for number in (1, 2):
            await manager.store.record_log(a_log_entry(request.id, "aaaa", number))
    find = messages.FindRequest(filter=RequestFilter(type="nap"), page_size=1)
    log = messages.GetLogRequest(request_id=first.id, page_size=1)
    chain = messages.GetJobChainRequest(request_id=first.id, page_size=1)
    plan = messages.PlanRequest(type="nap", args=PLAN_ARGS, page_size=1)
    calls: list[tuple[Callable[..., Any], Any, Any]] = [
        (service.Find, find, messages.FindRequest(filter=RequestFilter(user="finch"))),
        (service.GetLog, log, messages.GetLogRequest(request_id=second.id)),
        (
            service.GetLog,
            messages.GetLogRequest(request_id=first.id, page_size=1, newest_first=True),
            messages.GetLogRequest(request_id=first.id, newest_first=True, omit_noops=True),
        ),
        (service.GetJobChain, chain, messages.GetJobChainRequest(request_id=second.id)),
        (service.Plan, plan, messages.PlanRequest(type="nap", args=to_struct({"host": "db3"}))),
    ]
    tokens = [(await method(call, FINCH)).next_page_token for method, call, _ in calls]
    assert all(tokens)
    for number, (method, call, other) in enumerate(calls):
        other.page_token = tokens[number]
        assert await reason_of(method, other) == "BAD_PAGE_TOKEN"
        for wrong in ("nonsense", *tokens[:number], *tokens[number + 1 :]):
            call.page_token = wrong
            assert await reason_of(method, call) == "BAD_PAGE_TOKEN"
        call.page_token = tokens[number]
        call.page_size = 0  # The page size may change.
        assert not (await method(call, FINCH)).next_page_token
    assert await reason_of(service.Plan, plan, calls_as("wren", "starter")) == "BAD_PAGE_TOKEN"


@pytest.mark.parametrize(
    "place",
    [
        (),
        (1,),
        (1.5, "a" * 20, 0),
        (1, "\0", 0),
        (1, "a" * 21, 0),
        (2**63, "a" * 20, 0),
        (1, 2, 3),
        ("x",) * 3,
    ],
)
async def test_forged_places_are_refused(manager: Manager, place: tuple[Any, ...]) -> None:
    """Anybody can compute the check value of a token."""
    created = await manager.create()
    wanted = RequestFilter(type="nap")
    find = b"Find " + wanted.SerializeToString(deterministic=True)
    service = manager.service
    call = messages.FindRequest(filter=wanted, page_token=page_token(find, place))
    assert await reason_of(service.Find, call) == "BAD_PAGE_TOKEN"
    log = page_token(b"GetLog " + created.id.encode(), place)
    call_of_log = messages.GetLogRequest(request_id=created.id, page_token=log)
    assert await reason_of(service.GetLog, call_of_log) == "BAD_PAGE_TOKEN"


@pytest.mark.parametrize("context", [FINCH, HTTP])
async def test_a_negative_page_size_is_refused(manager: Manager, context: Any) -> None:
    created = await manager.create()
    service = manager.service
    for method, call in (
        (service.Find, messages.FindRequest(page_size=-1)),
        (service.GetLog, messages.GetLogRequest(request_id=created.id, page_size=-1)),
        (service.GetJobChain, messages.GetJobChainRequest(request_id=created.id, page_size=-1)),
    ):
        assert await reason_of(method, call, context) == "BAD_PAGE_SIZE"


def joined(chains: list[JobChain]) -> JobChain:
    whole = JobChain()
    for chain in chains:
        whole.MergeFrom(chain)
    return whole
