"""The service RequestManager, on a real store, with runners that accept all chains."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from spincycle_grpc.auth import Caller
from spincycle_grpc.errors import (
    ConflictError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
)
from spincycle_grpc.state import State
from spincycle_grpc.structs import to_struct
from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_grpc.v1.audit_pb2 import AuditEvent, AuditFilter
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_grpc.v1.request_pb2 import Request, RequestFilter
from spincycle_grpc.v1.status_pb2 import JobStatus, StatusFilter
from spincycle_grpc.version import API_VERSION
from spincycle_server.builtin_jobs import builtin_factory
from spincycle_server.identity import Identity
from spincycle_server.identity.access import AccessLists
from spincycle_server.identity.permissions import Permissions
from spincycle_server.notifications.notifier import Notifier
from spincycle_server.notifications.targets import Targets
from spincycle_server.request_ids import RequestIdGenerator
from spincycle_server.request_manager import service as service_module
from spincycle_server.request_manager.audit import AuditLog
from spincycle_server.request_manager.build_pool import BuildPool
from spincycle_server.request_manager.dispatcher import Dispatcher
from spincycle_server.request_manager.notification_desk import NotificationDesk
from spincycle_server.request_manager.original_runners import OriginalRunners
from spincycle_server.request_manager.output_followers import OutputFollowers
from spincycle_server.request_manager.received_args import received_args
from spincycle_server.request_manager.request_pauser import RequestPauser
from spincycle_server.request_manager.request_stopper import RequestStopper
from spincycle_server.request_manager.self_description import SelfDescription, ShownOption
from spincycle_server.request_manager.service import RequestManagerService
from spincycle_server.rpc import CallContext
from spincycle_server.specs.model import AclSpec
from spincycle_server.store import Store
from spincycle_server.store import store as store_module
from spincycle_server.store.creation import creation_of
from spincycle_server.watch import Hub, Watching
from tests.graph.models import NOWHERE, node, sequence, specs
from tests.limits import STEP
from tests.request_manager.doubles import WillingRunners, deliveries_end, make_dispatcher, state_of
from tests.store.samples import RUNNER, a_log_entry

UNKNOWN = "00000000000000000000"
SPECS = specs(
    sequence("nap", node("one"), node("two", deps=["one"]), request=True, optional={"host": "db1"}),
    replace(
        sequence("guarded", node("job"), request=True),
        acl=(
            AclSpec("starter", admin=False, ops=("start",), position=NOWHERE),
            AclSpec("stopper", admin=False, ops=("stop",), position=NOWHERE),
            AclSpec("pauser", admin=False, ops=("pause",), position=NOWHERE),
        ),
    ),
    sequence("inner", node("job")),
)


OPTIONS = [
    ShownOption("server.addr", "127.0.0.1:1", "command line"),
    ShownOption("auth.read", "all", "default"),
]


def calls_as(name: str, *roles: str) -> CallContext:
    return CallContext(Identity(Caller(name, frozenset(roles))))


FINCH = calls_as("finch")
STARTER = calls_as("wren", "starter")
STOPPER = calls_as("heron", "stopper")


@dataclass
class Manager:
    """A Request Manager without servers."""

    service: RequestManagerService
    store: Store
    runners: WillingRunners
    dispatcher: Dispatcher

    async def create(
        self, request_type: str = "nap", context: CallContext = FINCH, *, key: str | None = None, **args: Any
    ) -> Request:
        call = messages.CreateRequest(type=request_type, args=to_struct(args), idempotency_key=key)
        return (await self.service.Create(call, context)).request

    async def stored(self) -> list[str]:
        """Returns the ids of all requests."""
        return [found.id for found in await self.store.find_requests(RequestFilter())]

    async def delivered(self) -> list[str]:
        """Returns the requests whose chains a runner has, when nothing is in flight."""
        await deliveries_end(self.dispatcher)
        return [chain.job_chain.request_id for _, chain in self.runners.delivered]

    async def lose_runner(self) -> None:
        await self.store.remove_runner(RUNNER.runner_id)
        await self.runners.refresh()


@contextlib.asynccontextmanager
async def managing(store: Store, permissions: Permissions) -> AsyncIterator[Manager]:
    """Runs a Request Manager that asks for these permissions."""
    runners = WillingRunners(store)
    dispatcher = await make_dispatcher(store, runners, max_waiting=2)
    audit = AuditLog(store, is_on=True, admin_roles=("boss",))
    originals = OriginalRunners(store)
    service = RequestManagerService(
        store=store,
        build_pool=BuildPool(SPECS, builtin_factory, create_timeout=60),
        dispatcher=dispatcher,
        stopper=RequestStopper(store, runners, dispatcher, originals),
        pauser=RequestPauser(store, runners, dispatcher),
        runners=runners,
        originals=originals,
        permissions=permissions,
        request_ids=RequestIdGenerator(),
        followers=OutputFollowers(store, runners, limit=10),
        audit=audit,
        watching=Watching(store, Hub(store), permissions, max_watchers=10),
        notifications=NotificationDesk(store, audit, Notifier(Targets(), store, "")),
        self_description=SelfDescription(store, audit, OPTIONS, database_timeout=STEP),
    )
    yield Manager(service, store, runners, dispatcher)
    await dispatcher.close()
    await runners.close()


@pytest.fixture
async def manager(store: Store) -> AsyncIterator[Manager]:
    async with managing(store, Permissions(AccessLists(SPECS))) as manager:
        yield manager


async def test_a_created_request_is_answered_pending_and_runs(manager: Manager) -> None:
    created = await manager.create(host="db2")
    assert (created.type, created.user, State(created.state)) == ("nap", "finch", State.PENDING)
    assert [(arg.name, arg.value.string_value) for arg in created.args] == [("host", "db2")]
    assert await manager.delivered() == [created.id]
    found = await manager.store.get_request(created.id, with_job_chain=True)
    assert State(found.state) is State.RUNNING
    assert found.created_at == created.created_at
    assert found.total_jobs == created.total_jobs == len(found.job_chain.jobs)


async def test_a_request_without_a_runner_is_pending(manager: Manager) -> None:
    await manager.lose_runner()
    created = await manager.create()
    assert await state_of(manager.store, created.id) is State.PENDING
    assert manager.runners.delivered == []


async def test_creates_are_refused_while_too_many_requests_are_pending(manager: Manager) -> None:
    await manager.lose_runner()
    pending = [(await manager.create()).id for _ in range(2)]
    with pytest.raises(ResourceExhaustedError) as caught:
        await manager.create()
    assert caught.value.reason == "TOO_MANY_WAITING"
    assert sorted(await manager.stored()) == sorted(pending)


@pytest.mark.parametrize(
    ("request_type", "reason"),
    [("", "TYPE_EMPTY"), ("unknown", "UNKNOWN_REQUEST_TYPE"), ("inner", "NOT_A_REQUEST")],
)
async def test_a_type_that_is_not_a_request_is_refused(
    manager: Manager, request_type: str, reason: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await manager.create(request_type)
    assert caught.value.reason == reason
    with pytest.raises(InvalidArgumentError) as caught:
        await manager.service.Plan(messages.PlanRequest(type=request_type), FINCH)
    assert caught.value.reason == reason
    assert await manager.stored() == []


async def test_a_key_creates_one_request_and_repeats_its_first_answer(manager: Manager) -> None:
    created = await manager.create(key="once", host="db2")
    await manager.store.finish(created.id, State.COMPLETE, created.created_at.ToMicroseconds() + 1, 2)
    assert await manager.create(key="once", host="db2") == created
    assert await manager.stored() == [created.id]
    assert await manager.delivered() == [created.id]


async def test_concurrent_creates_with_one_key_create_one_request(manager: Manager) -> None:
    created = await asyncio.gather(*(manager.create(key="once") for _ in range(8)))
    assert {request.id for request in created} == set(await manager.stored())
    assert len(await manager.stored()) == 1


async def test_a_key_is_refused_for_other_args(manager: Manager) -> None:
    created = await manager.create(key="once", host="db2")
    with pytest.raises(ConflictError) as caught:
        await manager.create(key="once", host="db3")
    assert caught.value.reason == "IDEMPOTENCY_KEY_REUSED"
    assert await manager.stored() == [created.id]


async def test_callers_do_not_share_keys(manager: Manager) -> None:
    created = [await manager.create(context=calls_as(name), key="once") for name in ("finch", "wren")]
    assert created[0].id != created[1].id


@pytest.mark.parametrize("key", ["", "k" * 256, "secr\u00e9t", "secret\n"])
async def test_a_malformed_key_is_refused_and_not_shown(manager: Manager, key: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await manager.create(key=key)
    assert caught.value.reason == "BAD_IDEMPOTENCY_KEY"
    assert not key or key not in caught.value.message
    assert await manager.stored() == []


async def test_a_plan_has_the_chain_and_stores_nothing(manager: Manager) -> None:
    plan = (await manager.service.Plan(messages.PlanRequest(type="nap"), FINCH)).request
    assert {job.name for job in plan.job_chain.jobs.values()} >= {"one", "two"}
    assert (plan.id, plan.total_jobs) == ("", len(plan.job_chain.jobs))
    assert await manager.stored() == []


async def test_only_roles_with_the_operation_may_create_plan_start_and_stop(manager: Manager) -> None:
    await manager.lose_runner()
    created = await manager.create("guarded", STARTER)
    service = manager.service
    denied = [
        service.Create(messages.CreateRequest(type="guarded"), STOPPER),
        service.Plan(messages.PlanRequest(type="guarded"), STOPPER),
        service.Start(messages.StartRequest(request_id=created.id), STOPPER),
        service.Stop(messages.StopRequest(request_id=created.id), STARTER),
    ]
    for outcome in await asyncio.gather(*denied, return_exceptions=True):
        assert isinstance(outcome, PermissionDeniedError)
        assert outcome.reason == "ACCESS_DENIED"
    assert await manager.stored() == [created.id]
    assert await state_of(manager.store, created.id) is State.PENDING
    await service.Stop(messages.StopRequest(request_id=created.id), STOPPER)
    assert await state_of(manager.store, created.id) is State.STOPPED


async def test_every_caller_may_read_a_guarded_request(manager: Manager) -> None:
    created = await manager.create("guarded", STARTER)
    found = (await manager.service.Get(messages.GetRequest(request_id=created.id), FINCH)).request
    assert found.id == created.id


async def test_a_start_assigns_a_pending_request_before_it_answers(manager: Manager) -> None:
    await manager.lose_runner()
    created = await manager.create()
    await manager.store.renew_runner(RUNNER, 3600, draining=False)
    await manager.runners.refresh()
    await manager.service.Start(messages.StartRequest(request_id=created.id), FINCH)
    assert [chain.job_chain.request_id for _, chain in manager.runners.delivered] == [created.id]
    assert await state_of(manager.store, created.id) is State.RUNNING


async def test_a_start_without_a_runner_leaves_the_request_pending(manager: Manager) -> None:
    await manager.lose_runner()
    created = await manager.create()
    with pytest.raises(UnavailableError) as caught:
        await manager.service.Start(messages.StartRequest(request_id=created.id), FINCH)
    assert (caught.value.reason, caught.value.request_id) == ("NO_JOB_RUNNER", created.id)
    assert await state_of(manager.store, created.id) is State.PENDING


async def test_a_request_that_runs_cannot_be_started_again(manager: Manager) -> None:
    created = await manager.create()
    with pytest.raises(FailedPreconditionError) as caught:
        await manager.service.Start(messages.StartRequest(request_id=created.id), FINCH)
    assert caught.value.reason == "WRONG_STATE"
    assert await manager.delivered() == [created.id]


async def test_a_stop_tells_the_runner(manager: Manager) -> None:
    created = await manager.create()
    await manager.service.Stop(messages.StopRequest(request_id=created.id), FINCH)
    assert manager.runners.stopped == [("r1", created.id)]


async def test_only_roles_with_the_operation_may_pause_and_resume(manager: Manager) -> None:
    created = await manager.create("guarded", STARTER)
    pause, resume = (
        messages.PauseRequest(request_id=created.id),
        messages.ResumeRequest(request_id=created.id),
    )
    for denied in (manager.service.Pause(pause, STOPPER), manager.service.Resume(resume, STARTER)):
        with pytest.raises(PermissionDeniedError) as caught:
            await denied
        assert caught.value.reason == "ACCESS_DENIED"
    pauser = calls_as("kite", "pauser")
    await manager.service.Pause(pause, pauser)
    found = (await manager.service.Get(messages.GetRequest(request_id=created.id), FINCH)).request
    assert found.waiting.startswith("paused by kite at ")
    await manager.service.Resume(resume, pauser)


async def test_pauses_and_their_ends_are_in_the_audit_log_once(manager: Manager) -> None:
    created = await manager.create()
    pause = messages.PauseRequest(request_id=created.id)
    for _ in range(2):
        await manager.service.Pause(pause, FINCH)
    await manager.service.Resume(messages.ResumeRequest(request_id=created.id), STARTER)
    with pytest.raises(FailedPreconditionError) as caught:
        await manager.service.Resume(messages.ResumeRequest(request_id=created.id), STARTER)
    assert caught.value.reason == "WRONG_STATE"
    events = await history_of(manager, created.id)
    assert sorted((event.user, event.operation) for event in events) == [
        ("finch", "RequestManager.Create"),
        ("finch", "RequestManager.Pause"),
        ("wren", "RequestManager.Resume"),
    ]


async def test_an_unknown_request_is_not_found(manager: Manager) -> None:
    service = manager.service
    outcomes = await asyncio.gather(
        service.Get(messages.GetRequest(request_id=UNKNOWN), FINCH),
        service.Start(messages.StartRequest(request_id=UNKNOWN), FINCH),
        service.Stop(messages.StopRequest(request_id=UNKNOWN), FINCH),
        service.GetJobChain(messages.GetJobChainRequest(request_id=UNKNOWN), FINCH),
        service.GetJobLog(messages.GetJobLogRequest(request_id=UNKNOWN, job_id="aaaa"), FINCH),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [NotFoundError] * 5


GRPC_AND_HTTP = (FINCH, FINCH._replace(transport="http"))


@pytest.mark.parametrize(
    ("view", "omits", "shown_over_grpc_and_http"),
    [
        (messages.REQUEST_VIEW_UNKNOWN, False, (False, True)),
        (messages.REQUEST_VIEW_UNKNOWN, True, (False, False)),
        (messages.REQUEST_VIEW_BASIC, False, (False, False)),
        (messages.REQUEST_VIEW_FULL, False, (True, True)),
        (messages.REQUEST_VIEW_FULL, True, (True, True)),
    ],
)
async def test_the_view_says_whether_get_returns_the_job_chain(
    manager: Manager,
    view: messages.RequestView.ValueType,
    omits: bool,
    shown_over_grpc_and_http: tuple[bool, bool],
) -> None:
    created = await manager.create()
    chain = await manager.store.get_job_chain(created.id)
    call = messages.GetRequest(request_id=created.id, view=view, omit_job_chain=omits)
    for context, is_shown in zip(GRPC_AND_HTTP, shown_over_grpc_and_http, strict=True):
        found = (await manager.service.Get(call, context)).request
        assert found.HasField("job_chain") == is_shown
        assert found.job_chain == (chain if is_shown else JobChain())
        assert found.total_jobs == len(chain.jobs)


@pytest.mark.parametrize("is_server_strict", [False, True])
@pytest.mark.parametrize("is_call_strict", [False, True])
async def test_a_strict_call_or_server_refuses_unknown_args(
    manager: Manager, is_server_strict: bool, is_call_strict: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager.service._build_pool, "_strict_args", is_server_strict)
    args = to_struct({"hots": "db2"})
    create = messages.CreateRequest(type="nap", args=args, strict_args=is_call_strict)
    plan = messages.PlanRequest(type="nap", args=args, strict_args=is_call_strict)
    if not is_server_strict and not is_call_strict:
        await manager.service.Create(create, FINCH)
        await manager.service.Plan(plan, FINCH)
        return
    for call in (manager.service.Create(create, FINCH), manager.service.Plan(plan, FINCH)):
        with pytest.raises(InvalidArgumentError, match="did you mean host") as caught:
            await call
        assert (caught.value.reason, caught.value.field) == ("UNKNOWN_ARG", "args.hots")
    assert not await manager.stored()


async def test_find_returns_the_requests_that_match(manager: Manager) -> None:
    await manager.create()
    guarded = await manager.create("guarded", STARTER)
    call = messages.FindRequest(filter=RequestFilter(type="guarded"))
    assert [found.id for found in (await manager.service.Find(call, FINCH)).requests] == [guarded.id]


async def test_logs_have_the_entries_of_a_request_and_the_newest_of_a_job(manager: Manager) -> None:
    created = await manager.create()
    for job_id, number in (("aaaa", 1), ("aaaa", 2), ("bbbb", 1)):
        await manager.store.record_log(a_log_entry(created.id, job_id, number))
    log = await manager.service.GetLog(messages.GetLogRequest(request_id=created.id), FINCH)
    assert [(entry.job_id, getattr(entry, "try")) for entry in log.entries] == [
        ("aaaa", 1),
        ("aaaa", 2),
        ("bbbb", 1),
    ]
    call = messages.GetJobLogRequest(request_id=created.id, job_id="aaaa")
    assert getattr((await manager.service.GetJobLog(call, FINCH)).entry, "try") == 2


async def test_the_request_list_has_no_inner_sequences(manager: Manager) -> None:
    listed = await manager.service.RequestList(messages.RequestListRequest(), FINCH)
    assert {spec.name for spec in listed.specs} == {"nap", "guarded"}


@pytest.mark.parametrize("order_by", ["", "startTime", "starttime"])
async def test_running_returns_the_jobs_with_their_requests(manager: Manager, order_by: str) -> None:
    created = await manager.create()
    await manager.create()
    manager.runners.running = [JobStatus(request_id=created.id, job_id="aaaa")]
    call = messages.RunningRequest(filter=StatusFilter(order_by=order_by))
    status = (await manager.service.Running(call, FINCH)).status
    assert list(status.jobs) == manager.runners.running
    assert set(status.requests) == {created.id}


async def test_running_names_the_job_runner_over_grpc_but_not_in_the_bodies_of_the_original(
    manager: Manager,
) -> None:
    created = await manager.create()
    manager.runners.running = [JobStatus(request_id=created.id, job_id="aaaa")]
    stored = await manager.store.get_request(created.id, with_job_chain=False)
    assert stored.job_runner_url
    urls = [
        (await manager.service.Running(messages.RunningRequest(), context)).status.requests[created.id]
        for context in GRPC_AND_HTTP
    ]
    assert [found.job_runner_url for found in urls] == [stored.job_runner_url, ""]


async def test_running_refuses_another_order(manager: Manager) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await manager.service.Running(messages.RunningRequest(filter=StatusFilter(order_by="jobId")), FINCH)
    assert caught.value.reason == "BAD_FILTER"


async def test_version_returns_the_version_of_the_api(manager: Manager) -> None:
    answer = await manager.service.Version(messages.RequestManagerVersionRequest(), FINCH)
    assert answer.version == API_VERSION


async def test_counts_are_of_the_requests_that_match(manager: Manager) -> None:
    await manager.create()
    await manager.lose_runner()
    await manager.create(host="db2")
    call = messages.CountRequestsRequest(filter=RequestFilter(type="nap"))
    counts = (await manager.service.CountRequests(call, FINCH)).counts
    assert {State(one.state).name: one.count for one in counts} == {
        "PENDING": 1, "RUNNING": 1, "COMPLETE": 0, "FAIL": 0, "STOPPED": 0, "SUSPENDED": 0,
    }  # fmt: skip
    for wanted in (RequestFilter(limit=1), RequestFilter(offset=1)):
        with pytest.raises(InvalidArgumentError) as caught:
            await manager.service.CountRequests(messages.CountRequestsRequest(filter=wanted), FINCH)
        assert caught.value.reason == "BAD_FILTER"


async def test_the_configuration_has_sources_and_the_health(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = messages.GetConfigurationRequest()
    shown = await manager.service.GetConfiguration(call, FINCH)
    assert [(one.name, one.value, one.source) for one in shown.options] == [
        ("auth.read", "all", "default"),
        ("server.addr", "127.0.0.1:1", "command line"),
    ]
    assert (shown.database, shown.api_version) == ("sqlite", API_VERSION)
    assert {one.name: one.healthy for one in shown.health} == {
        "database": True, "job runners": True, "audit log": True,
    }  # fmt: skip
    await manager.lose_runner()
    shown = await manager.service.GetConfiguration(call, FINCH)
    assert [one.name for one in shown.health if not one.healthy] == ["job runners"]

    async def away() -> None:
        raise UnavailableError("gone", reason="DATABASE_UNAVAILABLE")

    monkeypatch.setattr(manager.store, "ping", away)
    monkeypatch.setattr(manager.store, "live_runners", away)
    shown = await manager.service.GetConfiguration(call, FINCH)
    assert shown.health[0].message == "gone"
    assert [one.name for one in shown.health if not one.healthy] == ["database", "job runners"]


async def test_callers_learn_their_roles_and_permissions(manager: Manager) -> None:
    caller = await manager.service.GetCaller(messages.GetCallerRequest(), STARTER)
    assert (caller.user, list(caller.roles), caller.is_admin) == ("wren", ["starter"], False)
    assert {one.type: list(one.operations) for one in caller.permissions} == {
        "guarded": ["start", "view", "log", "retry"],
        "nap": ["start", "stop", "view", "log", "retry", "pause"],
    }
    boss = await manager.service.GetCaller(messages.GetCallerRequest(), calls_as("owl", "boss"))
    assert boss.is_admin


async def history_of(manager: Manager, request_id: str, context: CallContext = FINCH) -> list[AuditEvent]:
    """Returns the audit events of a request, newest first."""
    call = messages.ListAuditEventsRequest(filter=AuditFilter(request_id=request_id))
    return list((await manager.service.ListAuditEvents(call, context)).events)


async def test_creates_starts_and_stops_are_in_the_audit_log(manager: Manager) -> None:
    await manager.lose_runner()
    created = await manager.create(key="once")
    await manager.create(key="once")
    with pytest.raises(UnavailableError):
        await manager.service.Start(messages.StartRequest(request_id=created.id), FINCH)
    await manager.store.renew_runner(RUNNER, 3600, draining=False)
    await manager.runners.refresh()
    await manager.service.Start(messages.StartRequest(request_id=created.id), STARTER)
    for _ in range(2):
        await manager.service.Stop(messages.StopRequest(request_id=created.id), STOPPER)
    events = await history_of(manager, created.id)
    assert [(event.user, event.operation, event.outcome) for event in events] == [
        ("heron", "RequestManager.Stop", "OK"),
        ("wren", "RequestManager.Start", "OK"),
        ("finch", "RequestManager.Create", "OK"),
    ]
    assert {event.request_type for event in events} == {"nap"}


async def test_only_administrators_list_events_of_all_requests(manager: Manager) -> None:
    created = [(await manager.create()).id for _ in range(2)]
    everything = messages.ListAuditEventsRequest()
    with pytest.raises(PermissionDeniedError):
        await manager.service.ListAuditEvents(everything, FINCH)
    listed = await manager.service.ListAuditEvents(everything, calls_as("owl", "boss"))
    assert {event.request_id for event in listed.events} == set(created)
    with pytest.raises(NotFoundError):
        await history_of(manager, UNKNOWN)
    assert await history_of(manager, UNKNOWN, calls_as("owl", "boss")) == []


@pytest.mark.parametrize("count", [10, 20_000])
async def test_large_args_are_converted_and_stored_off_the_event_loop(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    threads: dict[str, int] = {}

    def noting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **named: Any) -> Any:
            threads[name] = threading.get_ident()
            return function(*args, **named)

        return noted

    monkeypatch.setattr(service_module, "received_args", noting("convert", received_args))
    monkeypatch.setattr(store_module, "creation_of", noting("store", creation_of))
    builder = manager.service._build_pool._used.builder
    monkeypatch.setattr(builder, "build", noting("build", builder.build))
    await manager.create(host=["x"] * count)
    are_here = {name: thread == threading.get_ident() for name, thread in threads.items()}
    assert are_here == dict.fromkeys(("convert", "build", "store"), count == 10)
