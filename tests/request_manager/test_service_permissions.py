"""What callers may read and do, if reading follows the access lists and a plugin is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from spincycle_grpc.auth import Caller
from spincycle_grpc.errors import InvalidArgumentError, NotFoundError, PermissionDeniedError
from spincycle_grpc.state import State
from spincycle_grpc.structs import to_struct
from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_grpc.v1.approval_pb2 import Approval, OpenedApproval
from spincycle_grpc.v1.request_pb2 import ArgType, Request, RequestFilter
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, ChainReport
from spincycle_grpc.v1.status_pb2 import JobStatus, StatusFilter
from spincycle_server.identity import Identity
from spincycle_server.identity.access import AccessLists
from spincycle_server.identity.permissions import Permissions
from spincycle_server.rpc import CallContext
from spincycle_server.specs.model import AclSpec
from spincycle_server.store import Store
from tests.graph.models import NOWHERE, node, sequence, specs
from tests.request_manager.doubles import state_of
from tests.request_manager.test_service import SPECS as SERVICE_SPECS
from tests.request_manager.test_service import UNKNOWN, Manager, calls_as, managing
from tests.store.samples import RUNNER, a_log_entry

FINCH = calls_as("finch")
STARTER = calls_as("wren", "starter")
VIEWER = calls_as("owl", "viewer")
LOGGER = calls_as("tit", "logger")
BOSS = calls_as("boss", "boss")
SERVER = CallContext(Identity(method="cluster"))


def with_lists() -> Any:
    """Returns the specs of the service's tests, whose guarded type has lists for reading too."""
    guarded = SERVICE_SPECS.sequences["guarded"]
    entries = [
        AclSpec(role, admin=False, ops=(operation,), position=NOWHERE)
        for role, operation in (("starter", "start"), ("viewer", "view"), ("logger", "log"))
    ]
    return specs(
        SERVICE_SPECS.sequences["nap"],
        replace(guarded, acl=tuple(entries)),
        sequence("inner", node("job")),
    )


@pytest.fixture
async def manager(store: Store) -> AsyncIterator[Manager]:
    lists = AccessLists(with_lists(), admin_roles=["boss"])
    async with managing(store, Permissions(lists, reads_follow_lists=True)) as manager:
        yield manager


@pytest.fixture
async def strict_manager(store: Store) -> AsyncIterator[Manager]:
    lists = AccessLists(with_lists(), admin_roles=["boss"], strict=True)
    async with managing(store, Permissions(lists, reads_follow_lists=True)) as manager:
        yield manager


async def create_some(manager: Manager, count: int = 3) -> tuple[list[str], list[str]]:
    """Creates open and guarded requests in turn. Returns the ids of both, newest first."""
    open_ids, guarded_ids = [], []
    for _ in range(count):
        open_ids.append((await manager.create("nap", BOSS)).id)
        guarded_ids.append((await manager.create("guarded", BOSS)).id)
    return open_ids[::-1], guarded_ids[::-1]


async def found(manager: Manager, context: CallContext, **wanted: Any) -> list[str]:
    call = messages.FindRequest(filter=RequestFilter(**wanted))
    return [request.id for request in (await manager.service.Find(call, context)).requests]


Read = Callable[[Manager, str, CallContext], Any]
READS: dict[str, tuple[str, Read]] = {
    "Get": (
        "view",
        lambda manager, it, context: manager.service.Get(messages.GetRequest(request_id=it), context),
    ),
    "GetJobChain": (
        "view",
        lambda manager, it, context: manager.service.GetJobChain(
            messages.GetJobChainRequest(request_id=it), context
        ),
    ),
    "GetLog": (
        "log",
        lambda manager, it, context: manager.service.GetLog(messages.GetLogRequest(request_id=it), context),
    ),
    "GetJobLog": (
        "log",
        lambda manager, it, context: manager.service.GetJobLog(
            messages.GetJobLogRequest(request_id=it, job_id="aaaa"), context
        ),
    ),
    "FollowOutput": (
        "log",
        lambda manager, it, context: anext(
            manager.service.FollowOutput(messages.FollowOutputRequest(request_id=it, job_id="aaaa"), context)
        ),
    ),
}


@pytest.mark.parametrize("method", READS)
async def test_a_method_that_reads_one_request_needs_its_operation(manager: Manager, method: str) -> None:
    operation, read = READS[method]
    reader, role = {"view": (VIEWER, "viewer"), "log": (LOGGER, "logger")}[operation]
    (open_id,), (guarded_id,) = await create_some(manager, 1)
    for request_id in (open_id, guarded_id):
        await manager.store.record_log(a_log_entry(request_id, "aaaa", 1))
    for context in (FINCH, STARTER, VIEWER, LOGGER, BOSS, SERVER):
        await read(manager, open_id, context)
        if context in (BOSS, SERVER, reader):
            await read(manager, guarded_id, context)
            continue
        with pytest.raises(PermissionDeniedError) as caught:
            await read(manager, guarded_id, context)
        assert (caught.value.reason, caught.value.request_id) == ("ACCESS_DENIED", guarded_id)
        assert caught.value.message.endswith(f"needs one of the roles: boss, {role}")


@pytest.mark.parametrize("method", READS)
async def test_an_unknown_request_is_not_found_by_those_who_may_not_read_all(
    manager: Manager, method: str
) -> None:
    with pytest.raises(NotFoundError):
        await READS[method][1](manager, UNKNOWN, FINCH)


async def test_finds_omit_what_the_caller_may_not_view(manager: Manager) -> None:
    open_ids, guarded_ids = await create_some(manager)
    everything = sorted([*open_ids, *guarded_ids], reverse=True)
    for context in (FINCH, STARTER, LOGGER):
        assert await found(manager, context) == open_ids
        assert await found(manager, context, type="guarded") == []
        assert await found(manager, context, type="nap") == open_ids
    for context in (VIEWER, BOSS, SERVER):
        assert sorted(await found(manager, context), reverse=True) == everything
        assert await found(manager, context, type="guarded") == guarded_ids


async def test_pages_of_a_find_have_no_gaps_where_requests_are_omitted(manager: Manager) -> None:
    open_ids, _ = await create_some(manager, 5)
    pages = [await found(manager, FINCH, limit=2, offset=offset) for offset in range(0, 8, 2)]
    assert pages == [open_ids[:2], open_ids[2:4], open_ids[4:], []]


async def test_strict_lists_show_only_what_a_list_allows(strict_manager: Manager) -> None:
    _, guarded_ids = await create_some(strict_manager)
    assert await found(strict_manager, FINCH) == []
    assert await found(strict_manager, VIEWER) == guarded_ids
    assert await found(strict_manager, VIEWER, type="nap") == []
    assert await found(strict_manager, VIEWER, limit=1, offset=1) == guarded_ids[1:2]
    with pytest.raises(PermissionDeniedError):
        await strict_manager.service.Get(messages.GetRequest(request_id=guarded_ids[0]), FINCH)


async def test_the_request_list_shows_what_the_caller_may_view_or_start(
    manager: Manager, strict_manager: Manager
) -> None:
    for tested, context, expected in (
        (manager, FINCH, ["nap"]),
        (manager, LOGGER, ["nap"]),
        (manager, STARTER, ["guarded", "nap"]),
        (manager, VIEWER, ["guarded", "nap"]),
        (manager, BOSS, ["guarded", "nap"]),
        (strict_manager, FINCH, []),
        (strict_manager, STARTER, ["guarded"]),
        (strict_manager, BOSS, ["guarded", "nap"]),
    ):
        listed = await tested.service.RequestList(messages.RequestListRequest(), context)
        assert [spec.name for spec in listed.specs] == expected


async def test_running_omits_jobs_and_requests_that_the_caller_may_not_view(manager: Manager) -> None:
    (open_id,), (guarded_id,) = await create_some(manager, 1)
    manager.runners.running = [
        JobStatus(request_id=request_id, job_id="aaaa") for request_id in (open_id, guarded_id, UNKNOWN)
    ]
    for context, expected in ((FINCH, {open_id}), (VIEWER, {open_id, guarded_id})):
        status = (await manager.service.Running(messages.RunningRequest(), context)).status
        assert {job.request_id for job in status.jobs} == set(status.requests) == expected
    call = messages.RunningRequest(filter=StatusFilter(request_id=guarded_id))
    status = (await manager.service.Running(call, FINCH)).status
    assert guarded_id not in {job.request_id for job in status.jobs}
    status = (await manager.service.Running(messages.RunningRequest(), SERVER)).status
    assert len(status.jobs) == 3


async def test_the_history_of_a_request_needs_view(manager: Manager) -> None:
    _, (guarded_id,) = await create_some(manager, 1)
    call = messages.ListAuditEventsRequest()
    call.filter.request_id = guarded_id
    with pytest.raises(PermissionDeniedError):
        await manager.service.ListAuditEvents(call, FINCH)
    assert (await manager.service.ListAuditEvents(call, VIEWER)).events


@dataclass
class OwnedHosts:
    """A second check: callers may touch only the host of their name. It records what it was asked."""

    asked: list[tuple[str, str, Request]] = field(default_factory=list)

    async def authorize(self, caller: Caller, operation: str, request: Request) -> None:
        self.asked.append((caller.name, operation, request))
        (host,) = [arg.value.string_value for arg in request.args if arg.name == "host"]
        if host != caller.name:
            raise PermissionDeniedError(f"{caller.name} does not own {host}", reason="NOT_OWNER")


@pytest.fixture
def owned() -> OwnedHosts:
    return OwnedHosts()


@pytest.fixture
async def owned_manager(store: Store, owned: OwnedHosts) -> AsyncIterator[Manager]:
    async with managing(store, Permissions(AccessLists(SERVICE_SPECS), owned)) as manager:
        yield manager


async def test_the_plugin_decides_by_the_final_args_before_anything_is_built(
    owned_manager: Manager, owned: OwnedHosts
) -> None:
    with pytest.raises(PermissionDeniedError, match="finch does not own db1"):
        await owned_manager.create(context=FINCH)
    with pytest.raises(PermissionDeniedError, match="finch does not own wren"):
        await owned_manager.service.Plan(
            messages.PlanRequest(type="nap", args=to_struct({"host": "wren"})), FINCH
        )
    assert await owned_manager.stored() == []
    created = await owned_manager.create(context=FINCH, host="finch")
    assert await owned_manager.stored() == [created.id]
    default, planned, given = (request for _, _, request in owned.asked)
    assert [(name, operation) for name, operation, _ in owned.asked] == [("finch", "start")] * 3
    assert (given.id, given.type, given.user) == ("", "nap", "finch")
    assert list(given.args) == list(created.args)
    assert [(arg.given, arg.type) for arg in (*default.args, *planned.args)] == [
        (False, ArgType.ARG_TYPE_OPTIONAL),
        (True, ArgType.ARG_TYPE_OPTIONAL),
    ]


async def test_the_plugin_decides_about_starts_and_stops_of_stored_requests(
    owned_manager: Manager, owned: OwnedHosts
) -> None:
    await owned_manager.lose_runner()
    created = await owned_manager.create(context=FINCH, host="finch")
    del owned.asked[:]
    service = owned_manager.service
    for denied in (
        service.Start(messages.StartRequest(request_id=created.id), STARTER),
        service.Stop(messages.StopRequest(request_id=created.id), STARTER),
    ):
        with pytest.raises(PermissionDeniedError, match="wren does not own finch"):
            await denied
    assert await state_of(owned_manager.store, created.id) is State.PENDING
    await service.Stop(messages.StopRequest(request_id=created.id), FINCH)
    assert await state_of(owned_manager.store, created.id) is State.STOPPED
    assert [(name, operation) for name, operation, _ in owned.asked] == [
        ("wren", "start"), ("wren", "stop"), ("finch", "stop"),
    ]  # fmt: skip
    assert {request.id for _, _, request in owned.asked} == {created.id}
    assert not any(request.HasField("job_chain") for _, _, request in owned.asked)


async def test_the_plugin_is_not_asked_about_what_the_lists_refuse_or_the_spec_cannot_use(
    owned_manager: Manager, owned: OwnedHosts
) -> None:
    with pytest.raises(PermissionDeniedError) as caught:
        await owned_manager.create("guarded", FINCH)
    assert caught.value.reason == "ACCESS_DENIED"
    with pytest.raises(InvalidArgumentError) as invalid:
        await owned_manager.create("unknown", FINCH)
    assert invalid.value.reason == "UNKNOWN_REQUEST_TYPE"
    assert owned.asked == []


async def test_the_plugin_is_asked_about_reads_only_if_reading_follows_the_lists(
    owned_manager: Manager, owned: OwnedHosts
) -> None:
    created = await owned_manager.create(context=FINCH, host="finch")
    del owned.asked[:]
    for _, read in list(READS.values())[:3]:
        await read(owned_manager, created.id, STARTER)
    assert owned.asked == []


async def test_the_plugin_decides_who_may_read_a_request(store: Store, owned: OwnedHosts) -> None:
    permissions = Permissions(AccessLists(SERVICE_SPECS), owned, reads_follow_lists=True)
    async with managing(store, permissions) as manager:
        created = await manager.create(context=FINCH, host="finch")
        for operation, read in list(READS.values())[:3]:
            del owned.asked[:]
            await read(manager, created.id, FINCH)
            with pytest.raises(PermissionDeniedError, match="does not own"):
                await read(manager, created.id, STARTER)
            assert [(name, asked) for name, asked, _ in owned.asked] == [
                ("finch", operation), ("wren", operation),
            ]  # fmt: skip


async def test_counts_and_permissions_follow_the_lists(manager: Manager) -> None:
    await create_some(manager)

    async def counted(context: CallContext) -> int:
        response = await manager.service.CountRequests(messages.CountRequestsRequest(), context)
        return sum(one.count for one in response.counts)

    assert [await counted(context) for context in (FINCH, VIEWER, BOSS, SERVER)] == [3, 6, 6, 6]
    caller = await manager.service.GetCaller(messages.GetCallerRequest(), LOGGER)
    assert "guarded" not in {one.type for one in caller.permissions}
    caller = await manager.service.GetCaller(messages.GetCallerRequest(), VIEWER)
    assert {one.type: list(one.operations) for one in caller.permissions}["guarded"] == ["view"]


async def test_who_may_not_view_a_request_does_not_learn_who_decides_about_it(manager: Manager) -> None:
    _, (request_id,) = await create_some(manager, 1)
    assert request_id in await manager.delivered()
    what = Approval(roles=["dba"], approvals=1, timeout="24h")
    opened = OpenedApproval(job_id="aaaa", name="permit", approval=what)
    setattr(opened, "try", 1)
    report = ChainReport(assignment=Assignment(request_id=request_id, epoch=1), opened=[opened])
    assert await manager.store.apply_reports(RUNNER.runner_id, [report]) == []
    call = messages.ApproveRequest(request_id=request_id)
    for context, reason in (
        (FINCH, "ACCESS_DENIED"),
        (STARTER, "ACCESS_DENIED"),
        (VIEWER, "NOT_AN_APPROVER"),
        (BOSS, "OWN_REQUEST"),
    ):
        with pytest.raises(PermissionDeniedError) as caught:
            await manager.service.Approve(call, context)
        assert caught.value.reason == reason
        assert ("dba" in caught.value.message) is (reason == "NOT_AN_APPROVER")
    assert (await manager.service.Approve(call, calls_as("ann", "dba"))).approval.result
    for context in (FINCH, calls_as("ann", "dba")):
        with pytest.raises(PermissionDeniedError) as caught:
            await manager.service.Reject(messages.RejectRequest(request_id=request_id), context)
        assert caught.value.reason == "ACCESS_DENIED"
