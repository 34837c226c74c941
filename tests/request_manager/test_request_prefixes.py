"""Shortened request ids: completed for every method, counted only among visible requests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from spincycle_grpc.errors import InvalidArgumentError, NotFoundError
from spincycle_grpc.state import State
from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_grpc.v1.audit_pb2 import AuditFilter
from spincycle_grpc.v1.status_pb2 import StatusFilter
from spincycle_server.identity.access import AccessLists
from spincycle_server.identity.permissions import Permissions
from spincycle_server.request_manager import request_prefixes
from spincycle_server.store import Store
from tests.request_manager.test_service import FINCH, SPECS, Manager, calls_as, managing
from tests.request_manager.test_service_permissions import with_lists
from tests.store.samples import a_log_entry, create

ALONE = "dc26aaaaaaaaaaaaaaaa"
TWINS = ["dc26bor8di16sqictj30", "dc26bor8di16sqictj3v"]
OTHERS = ["0" * 20, "v" * 20, "dc25vvvvvvvvvvvvvvvv", "dc270000000000000000"]


@pytest.fixture
async def manager(store: Store) -> AsyncIterator[Manager]:
    async with managing(store, Permissions(AccessLists(SPECS))) as manager:
        yield manager


async def id_of(manager: Manager, beginning: str, context: Any = FINCH) -> str:
    found = await manager.service.Get(messages.GetRequest(request_id=beginning), context)
    return found.request.id


async def test_a_beginning_that_one_request_has_stands_for_its_id(manager: Manager) -> None:
    for request_id in (ALONE, *TWINS, *OTHERS):
        await create(manager.store, None, id=request_id)
    for length in range(5, 21):
        assert await id_of(manager, ALONE[:length]) == ALONE
    assert [await id_of(manager, one[:4]) for one in OTHERS] == OTHERS
    for beginning in ("dc26", "dc26b", TWINS[0][:19]):
        with pytest.raises(InvalidArgumentError, match=TWINS[1]) as refused:
            await id_of(manager, beginning)
        assert refused.value.reason == "AMBIGUOUS_REQUEST_ID"
    for beginning in ("dc2", "dc28", "DC26A", "dc26a%", "dc26_", "dc26é", "dc26a\0", f"{ALONE}0", ""):
        with pytest.raises(NotFoundError) as unknown:
            await id_of(manager, beginning)
        assert unknown.value.message == f"request {beginning} not found"


async def test_an_error_names_a_few_of_many(manager: Manager) -> None:
    for number in range(8):
        await create(manager.store, None, id=f"dc26aaaaaaaaaaaaaaa{number}")
    with pytest.raises(InvalidArgumentError, match=r"\(.*aaa0, .*aaa4, \.\.\.\)$") as refused:
        await id_of(manager, "dc26")
    assert "aaa5" not in refused.value.message


async def test_requests_that_the_caller_may_not_view_do_not_count(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    permissions = Permissions(AccessLists(with_lists(), admin_roles=["boss"]), reads_follow_lists=True)
    boss, guest = calls_as("kite", "boss"), calls_as("wren")
    async with managing(store, permissions) as manager:
        await create(store, None, id=TWINS[0], type="nap")
        await create(store, None, id=TWINS[1], type="guarded")
        assert await id_of(manager, "dc26", guest) == TWINS[0]
        with pytest.raises(InvalidArgumentError, match=TWINS[1]):
            await id_of(manager, "dc26", boss)
        monkeypatch.setattr(request_prefixes, "MOST_READ", 2)  # So many are read, and there may be more.
        with pytest.raises(InvalidArgumentError) as refused:
            await id_of(manager, "dc26", guest)
        assert TWINS[1] not in refused.value.message


CALLS: list[tuple[str, Callable[[str], Any]]] = [
    ("Get", lambda one: messages.GetRequest(request_id=one)),
    ("GetJobChain", lambda one: messages.GetJobChainRequest(request_id=one)),
    ("GetLog", lambda one: messages.GetLogRequest(request_id=one)),
    ("Running", lambda one: messages.RunningRequest(filter=StatusFilter(request_id=one))),
    ("Pause", lambda one: messages.PauseRequest(request_id=one)),
    ("Resume", lambda one: messages.ResumeRequest(request_id=one)),
    ("Stop", lambda one: messages.StopRequest(request_id=one)),
    ("Retry", lambda one: messages.RetryRequest(request_id=one)),
]


async def test_all_methods_take_the_beginning_of_an_id(manager: Manager) -> None:
    await create(manager.store, None, id=ALONE, type="nap")
    for name, call_of in CALLS:
        call = call_of(ALONE[:6])
        await getattr(manager.service, name)(call, FINCH)
        assert ALONE in str(call), name
    stopped = await manager.store.get_request(ALONE, with_job_chain=False)
    assert State(stopped.state) is State.STOPPED
    await manager.store.record_log(a_log_entry(ALONE))
    of_job = messages.GetJobLogRequest(request_id=ALONE[:6], job_id="bbbb")
    assert (await manager.service.GetJobLog(of_job, FINCH)).entry.request_id == ALONE
    followed = messages.FollowOutputRequest(request_id=ALONE[:6], job_id="bbbb")
    assert [message async for message in manager.service.FollowOutput(followed, FINCH)]


async def test_the_audit_log_takes_the_beginning_of_an_id(manager: Manager) -> None:
    await create(manager.store, None, id=ALONE, type="nap")
    await manager.service.Stop(messages.StopRequest(request_id=ALONE), FINCH)
    call = messages.ListAuditEventsRequest(filter=AuditFilter(request_id=ALONE[:4]))
    events = (await manager.service.ListAuditEvents(call, calls_as("kite", "boss"))).events
    assert [event.request_id for event in events] == [ALONE]
