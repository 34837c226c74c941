"""The servicer of RequestManager, which users call."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

import structlog

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.structs import discard
from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.version import API_VERSION
from spincycle_server.identity.access import LOG, PAUSE, RETRY, START, STOP, VIEW
from spincycle_server.large_work import LARGE, run_large, run_sized
from spincycle_server.request_manager.idempotency import as_created, key_of, key_of_retry
from spincycle_server.request_manager.limit_list import LimitList
from spincycle_server.request_manager.new_requests import NewRequests
from spincycle_server.request_manager.paged_chains import PagedChains
from spincycle_server.request_manager.planning import Planner
from spincycle_server.request_manager.received_args import received_args
from spincycle_server.request_manager.request_approver import RequestApprover
from spincycle_server.request_manager.request_pages import RequestPages
from spincycle_server.request_manager.request_prefixes import NamesRequest, RequestPrefixes
from spincycle_server.request_manager.request_retrier import RequestRetrier
from spincycle_server.request_manager.request_views import (
    hide_data,
    omit_large_args,
    running_response,
    show_as_original,
    shows_job_chain,
)
from spincycle_server.request_manager.runner_list import RunnerList
from spincycle_server.shared_messages import SharedMessage
from spincycle_server.store import CreatedBeforeError
from spincycle_server.store.log_pages import cut_output
from spincycle_server.store.pages import PAGE_BYTES
from spincycle_server.store.store import work_of
from spincycle_server.telemetry.spans import REQUEST_ID, REQUEST_TYPE, part_of
from spincycle_server.telemetry.trace_lines import trace_lines

if TYPE_CHECKING:
    from spincycle_grpc.trace_context import TraceContext
    from spincycle_server.graph import BuiltRequest
    from spincycle_server.identity.permissions import Permissions
    from spincycle_server.request_ids import RequestIdGenerator
    from spincycle_server.request_manager.audit import AuditLog
    from spincycle_server.request_manager.build_pool import BuildPool
    from spincycle_server.request_manager.dispatcher import Dispatcher
    from spincycle_server.request_manager.notification_desk import NotificationDesk
    from spincycle_server.request_manager.original_runners import OriginalRunners
    from spincycle_server.request_manager.output_followers import OutputFollowers
    from spincycle_server.request_manager.request_pauser import RequestPauser
    from spincycle_server.request_manager.request_stopper import RequestStopper
    from spincycle_server.request_manager.runners import Runners
    from spincycle_server.request_manager.self_description import SelfDescription
    from spincycle_server.rpc import CallContext
    from spincycle_server.store import Store
    from spincycle_server.store.audit import EventRow
    from spincycle_server.watch import Watching

logger = structlog.get_logger(__name__)


class RequestManagerService:
    """Implements the service RequestManager.

    Args:
        store: Stores the requests.
        build_pool: Builds job chains from specs.
        dispatcher: Dispatches requests to runners.
        stopper: Stops requests.
        pauser: Pauses and resumes requests.
        runners: The live runners, which list their running jobs.
        originals: The runners of an original Spin Cycle, which do so too.
        permissions: Decides what callers may do with requests.
        request_ids: Generates the ids of new requests.
        followers: Follows the output of jobs.
        audit: Makes the audit events of calls.
        watching: Opens streams of changes.
        notifications: Lists notifications, and sends them again.
        self_description: Describes this server to administrators.
    """

    def __init__(
        self,
        *,
        store: Store,
        build_pool: BuildPool,
        dispatcher: Dispatcher,
        stopper: RequestStopper,
        pauser: RequestPauser,
        runners: Runners,
        originals: OriginalRunners,
        permissions: Permissions,
        request_ids: RequestIdGenerator,
        followers: OutputFollowers,
        audit: AuditLog,
        watching: Watching,
        notifications: NotificationDesk,
        self_description: SelfDescription,
    ) -> None:
        self._store = store
        self._build_pool = build_pool
        self._dispatcher = dispatcher
        self._stopper = stopper
        self._pauser = pauser
        self._runners = runners
        self._originals = originals
        self._permissions = permissions
        self._request_ids = request_ids
        self._followers = followers
        self._audit = audit
        chains = PagedChains()
        self.limits = chains.limits
        self._pages = RequestPages(store, chains)
        self._planner = Planner(build_pool, chains)
        self._prefixes = RequestPrefixes(store, permissions)
        self._new_requests = NewRequests(store, dispatcher)
        self._retrier = RequestRetrier(store, dispatcher, self._new_requests)
        self._approver = RequestApprover(store, runners, audit, permissions)
        self._watching = watching
        self._runner_list = RunnerList(store, runners)
        self._notifications = notifications
        self._limit_list = LimitList(store)
        self._self_description = self_description

    async def Create(  # noqa: N802 (the contract's names, as below)
        self, request: messages.CreateRequest, context: CallContext
    ) -> messages.CreateResponse:
        """Creates a request and starts it, or returns the request that was created with the same key."""
        _require_type(request.type)
        self._permissions.check_type(context.caller, START, request.type)
        size = context.received.size_of(request)
        is_large = size > LARGE
        read = partial(received_args, request.args, context)
        args = await run_large(read) if is_large else read()
        if self._permissions.need_args:
            await self._check_args(context, request.type, args, size)
        has_key = request.HasField("idempotency_key")
        key = await run_sized(size, key_of, request, args, context.caller.name) if has_key else None
        if key is not None and (earlier := await self._store.request_of_key(key)) is not None:
            return await self._created_before(earlier, context)
        self._build_pool.check_known_args(request.type, args, strict=request.strict_args)
        self._dispatcher.check_limit()
        request_id = self._request_ids.next()
        trace = _begin_trace(context, request_id, request.type)
        response = messages.CreateResponse()
        created = response.request  # In place: a copy of large args lets no other thread run meanwhile.
        with part_of(context.span, "build"):
            built = await self._build_pool.build(
                request.type, args, request_id, is_large=is_large, record=created, trace=trace
            )
        if is_large:
            await run_large(discard, args)
        _describe(created, request_id, request.type, context.caller.name, built)
        created.trace_id = "" if trace is None else trace.trace_id
        event = self._audit.event(context, "RequestManager.Create", request_id, request.type)
        try:
            await self._new_requests.add(
                created,
                request,
                built.job_chain,
                built.requirement,
                chain_json=built.chain_json,
                key=key,
                event=event,
                work=work_of(size, len(built.job_chain.jobs), built.chain_bytes),
                span=context.span,
            )
        except CreatedBeforeError as error:  # by a concurrent call
            return await self._created_before(error.request_id, context)
        show_as_original((created,), context)
        logger.info("request created", request_id=request_id, type=request.type, user=created.user)
        if size > LARGE:
            omit_large_args(created, context)
        return response

    async def _check_args(
        self, context: CallContext, request_type: str, args: Mapping[str, object], size: int
    ) -> None:
        """Checks that the caller may create a request with these args, before its jobs are created."""
        wanted = await run_sized(size, self._wanted, request_type, context.caller.name, args)
        await self._permissions.check(context.caller, START, wanted)

    def _wanted(self, request_type: str, user: str, args: Mapping[str, object]) -> Request:
        wanted = Request(type=request_type, user=user)
        self._build_pool.record_args(wanted, args)
        return wanted

    async def _created_before(self, request_id: str, context: CallContext) -> messages.CreateResponse:
        found = await self._store.get_request(request_id, with_job_chain=False)
        logger.info("request was created before", request_id=request_id, type=found.type, user=found.user)
        omit_large_args(found, context)
        show_as_original((found,), context)
        return messages.CreateResponse(request=as_created(found))

    async def Retry(  # noqa: N802
        self, request: messages.RetryRequest, context: CallContext
    ) -> messages.RetryResponse:
        """Creates a request that does the rest of one that has ended."""
        await self._prefixes.complete(request, context.identity)
        first = await self._store.get_request(request.request_id, with_job_chain=False)
        await self._permissions.check(context.caller, RETRY, first)
        user = context.caller.name
        key = key_of_retry(request, user)
        try:
            if key is not None and (earlier := await self._store.request_of_key(key)) is not None:
                created = await self._retrier.created_before(earlier)
            else:
                retry_id = self._request_ids.next()
                event = self._audit.event(context, "RequestManager.Retry", retry_id, first.type)
                if event is not None:
                    event = {**event, "detail": f"retry of {first.id}"}
                created = await self._retrier.retry(
                    first,
                    retry_id,
                    user,
                    from_job=request.from_job,
                    key=key,
                    event=event,
                    trace=_begin_trace(context, retry_id, first.type),
                    span=context.span,
                )
        except CreatedBeforeError as error:  # by a concurrent call
            created = await self._retrier.created_before(error.request_id)
        omit_large_args(created, context)
        return messages.RetryResponse(request=created)

    async def Plan(  # noqa: N802
        self, request: messages.PlanRequest, context: CallContext
    ) -> messages.PlanResponse:
        """Builds the chain that a request would get. Stores nothing."""
        _require_type(request.type)
        self._permissions.check_type(context.caller, START, request.type)
        size = context.received.size_of(request)
        args = await run_sized(size, received_args, request.args, context)
        if self._permissions.need_args:
            await self._check_args(context, request.type, args, size)
        self._build_pool.check_known_args(request.type, args, strict=request.strict_args)
        return await self._planner.plan(request, args, context)

    async def Find(  # noqa: N802
        self, request: messages.FindRequest, context: CallContext
    ) -> messages.FindResponse:
        """Returns the requests that match a filter."""
        visible = self._permissions.visible_types(context.identity)
        return await self._pages.find(request, context, only_types=visible.only, hidden_types=visible.hidden)

    async def Get(self, request: messages.GetRequest, context: CallContext) -> messages.GetResponse:  # noqa: N802
        """Returns one request."""
        await self._check_may_read(context, VIEW, request)
        found = await self._store.get_request(
            request.request_id, with_job_chain=shows_job_chain(request, context)
        )
        hide_data(found.job_chain)
        omit_large_args(found, context)
        if found.approvals:
            self._approver.marked(found.approvals, context.caller)
        if request.view == messages.REQUEST_VIEW_UNKNOWN:
            show_as_original((found,), context)
        return messages.GetResponse(request=found)

    async def _check_may_read(self, context: CallContext, operation: str, request: NamesRequest) -> None:
        """Completes the id of the request, and checks that the caller may read it."""
        await self._prefixes.complete(request, context.identity)
        if self._permissions.restrict_reads_of(context.identity):
            found = await self._store.get_request(request.request_id, with_job_chain=False)
            await self._permissions.check(context.caller, operation, found)

    async def _permitted(
        self, context: CallContext, operation: str, method: str, request: NamesRequest
    ) -> EventRow | None:
        """Completes the id of a request, and checks that the caller may do something with it.

        Returns:
            The row of the call's audit event.

        Raises:
            NotFoundError: The request does not exist.
            InvalidArgumentError: The id is shortened, and several requests have such an id.
            PermissionDeniedError: The caller may not do this.
        """
        await self._prefixes.complete(request, context.identity)
        found = await self._store.get_request(request.request_id, with_job_chain=False)
        await self._permissions.check(context.caller, operation, found)
        return self._audit.event(context, method, found.id, found.type)

    async def Start(  # noqa: N802
        self, request: messages.StartRequest, context: CallContext
    ) -> messages.StartResponse:
        """Starts a PENDING request. No runner has it yet."""
        event = await self._permitted(context, START, "RequestManager.Start", request)
        await self._dispatcher.start(request.request_id, event)
        return messages.StartResponse()

    async def Stop(  # noqa: N802
        self, request: messages.StopRequest, context: CallContext
    ) -> messages.StopResponse:
        """Stops a request and its running jobs."""
        event = await self._permitted(context, STOP, "RequestManager.Stop", request)
        await self._stopper.stop(request.request_id, event)
        logger.info("request stop", request_id=request.request_id, user=context.caller.name)
        return messages.StopResponse()

    async def Pause(  # noqa: N802
        self, request: messages.PauseRequest, context: CallContext
    ) -> messages.PauseResponse:
        """Keeps a request from starting further jobs."""
        event = await self._permitted(context, PAUSE, "RequestManager.Pause", request)
        await self._pauser.pause(request.request_id, context.caller.name, stops_jobs=request.now, event=event)
        logger.info(
            "request paused", request_id=request.request_id, user=context.caller.name, now=request.now
        )
        return messages.PauseResponse()

    async def Resume(  # noqa: N802
        self, request: messages.ResumeRequest, context: CallContext
    ) -> messages.ResumeResponse:
        """Ends the pause of a request."""
        event = await self._permitted(context, PAUSE, "RequestManager.Resume", request)
        await self._pauser.resume(request.request_id, event)
        logger.info("request resumed", request_id=request.request_id, user=context.caller.name)
        return messages.ResumeResponse()

    async def Approve(  # noqa: N802
        self, request: messages.ApproveRequest, context: CallContext
    ) -> messages.ApproveResponse:
        """Approves what a request waits for."""
        await self._prefixes.complete(request, context.identity)
        decided = await self._approver.decide(request, context, "RequestManager.Approve", approved=True)
        return messages.ApproveResponse(approval=decided)

    async def Reject(  # noqa: N802
        self, request: messages.RejectRequest, context: CallContext
    ) -> messages.RejectResponse:
        """Rejects what a request waits for."""
        await self._prefixes.complete(request, context.identity)
        decided = await self._approver.decide(request, context, "RequestManager.Reject", approved=False)
        return messages.RejectResponse(approval=decided)

    async def ListApprovals(  # noqa: N802
        self, request: messages.ListApprovalsRequest, context: CallContext
    ) -> messages.ListApprovalsResponse:
        """Returns the approvals that requests wait for."""
        visible = self._permissions.visible_types(context.identity)
        return await self._approver.listed(context.caller, visible, only_mine=request.only_mine)

    async def GetJobChain(  # noqa: N802
        self, request: messages.GetJobChainRequest, context: CallContext
    ) -> messages.GetJobChainResponse:
        """Returns the job chain of a request as created."""
        await self._check_may_read(context, VIEW, request)
        return await self._pages.job_chain(request, context)

    async def GetLog(  # noqa: N802
        self, request: messages.GetLogRequest, context: CallContext
    ) -> messages.GetLogResponse:
        """Returns the job log of a request."""
        await self._check_may_read(context, LOG, request)
        return await self._pages.log(request, context)

    async def GetJobLog(  # noqa: N802
        self, request: messages.GetJobLogRequest, context: CallContext
    ) -> messages.GetJobLogResponse:
        """Returns the newest job log entry of a job."""
        await self._check_may_read(context, LOG, request)
        entry = await self._store.get_job_log(request.request_id, request.job_id)
        if context.transport == "grpc":
            cut_output(entry, PAGE_BYTES)
        return messages.GetJobLogResponse(entry=entry)

    async def FollowOutput(  # noqa: N802
        self, request: messages.FollowOutputRequest, context: CallContext
    ) -> AsyncGenerator[messages.FollowOutputResponse, None]:
        """Yields the output of a try of a job while the job writes it."""
        await self._check_may_read(context, LOG, request)
        async with contextlib.aclosing(self._followers.follow(request)) as answers:
            async for message in answers:
                yield message

    async def RequestList(  # noqa: N802
        self, request: messages.RequestListRequest, context: CallContext
    ) -> messages.RequestListResponse:
        """Returns the specs of the requests that the caller may view or start."""
        specs = [
            spec
            for spec in self._build_pool.request_specs
            if self._permissions.is_listed(context.identity, spec.name)
        ]
        return messages.RequestListResponse(specs=specs)

    async def Running(  # noqa: N802
        self, request: messages.RunningRequest, context: CallContext
    ) -> messages.RunningResponse:
        """Returns the running jobs of all runners, and their requests."""
        if request.filter.order_by.lower() not in ("", "starttime"):
            raise InvalidArgumentError(
                f"invalid 'orderBy' parameter: {request.filter.order_by!r} must be startTime",
                reason="BAD_FILTER",
            )
        await self._prefixes.complete(request.filter, context.identity)
        own, (of_originals, theirs) = await asyncio.gather(
            self._runners.running_jobs(request.filter), self._originals.running(request.filter)
        )
        jobs = sorted((*own, *theirs), key=lambda job: job.started_at)
        requests = await self._store.requests_by_id({*(job.request_id for job in jobs), *of_originals})
        for request_id in of_originals:  # Their runners may not list them, and they may have ended.
            if request_id in requests and requests[request_id].state != state_pb2.STATE_RUNNING:
                del requests[request_id]
        if self._permissions.restrict_reads_of(context.identity):
            visible = self._permissions.visible_types(context.identity)
            requests = {name: found for name, found in requests.items() if visible.has(found.type)}
            jobs = [job for job in jobs if job.request_id in requests]
        if context.transport == "http":
            for found in requests.values():
                found.job_runner_url = ""  # The original does not show it here.
            show_as_original(requests.values(), context)
        return running_response(jobs, requests, context)

    async def Watch(  # noqa: N802
        self, request: messages.WatchRequest, context: CallContext
    ) -> AsyncIterator[messages.WatchResponse | SharedMessage]:
        """Yields the current state of requests, then their changes."""
        await self._prefixes.complete(request, context.identity)
        async with contextlib.aclosing(self._watching.watch(request, context.identity)) as stream:
            async for message in stream:
                yield message

    async def ListAuditEvents(  # noqa: N802
        self, request: messages.ListAuditEventsRequest, context: CallContext
    ) -> messages.ListAuditEventsResponse:
        """Returns a page of the audit log."""
        self._audit.check(context.caller, request.filter)
        await self._prefixes.complete(request.filter, context.identity)
        if not self._audit.is_admin(context.caller):
            found = await self._store.get_request(request.filter.request_id, with_job_chain=False)
            if self._permissions.restrict_reads_of(context.identity):
                await self._permissions.check(context.caller, VIEW, found)
        return await self._audit.list(context.caller, request.filter)

    async def CountRequests(  # noqa: N802
        self, request: messages.CountRequestsRequest, context: CallContext
    ) -> messages.CountRequestsResponse:
        """Counts the requests that match a filter, by state."""
        if request.filter.limit or request.filter.offset:
            raise InvalidArgumentError(
                "limit and offset must be 0, because all requests that match are counted",
                reason="BAD_FILTER",
                field="filter.limit",
            )
        visible = self._permissions.visible_types(context.identity)
        counts = await self._store.count_requests(
            request.filter, only_types=visible.only, hidden_types=visible.hidden
        )
        response = messages.CountRequestsResponse()
        for state, found in counts.items():
            counted = response.counts.add(count=found.number, more=found.more)
            counted.state = state_pb2.State.ValueType(state)
        return response

    async def ListRunners(  # noqa: N802
        self, request: messages.ListRunnersRequest, context: CallContext
    ) -> messages.ListRunnersResponse:
        """Returns the live runners."""
        return await self._runner_list.list(
            request, context, self._permissions.visible_types(context.identity)
        )

    async def ListLimits(  # noqa: N802
        self, request: messages.ListLimitsRequest, context: CallContext
    ) -> messages.ListLimitsResponse:
        """Returns the keys of limits, with the requests that hold them or wait for them."""
        await self._prefixes.complete(request, context.identity)
        return await self._limit_list.list(request, self._permissions.visible_types(context.identity))

    async def GetConfiguration(  # noqa: N802
        self, request: messages.GetConfigurationRequest, context: CallContext
    ) -> messages.GetConfigurationResponse:
        """Returns the configuration and the health of this server."""
        return await self._self_description.describe()

    async def ListDeliveries(  # noqa: N802
        self, request: messages.ListDeliveriesRequest, context: CallContext
    ) -> messages.ListDeliveriesResponse:
        """Returns a page of the deliveries of notifications."""
        return await self._notifications.list(request.filter)

    async def Redeliver(  # noqa: N802
        self, request: messages.RedeliverRequest, context: CallContext
    ) -> messages.RedeliverResponse:
        """Sends an event to a target again."""
        await self._notifications.redeliver(context, request.event_id, request.target)
        return messages.RedeliverResponse()

    async def SendTestNotification(  # noqa: N802
        self, request: messages.SendTestNotificationRequest, context: CallContext
    ) -> messages.SendTestNotificationResponse:
        """Sends a test event to a target."""
        event_id = await self._notifications.send_test(context, request.target)
        return messages.SendTestNotificationResponse(event_id=event_id)

    async def GetCaller(  # noqa: N802
        self, request: messages.GetCallerRequest, context: CallContext
    ) -> messages.GetCallerResponse:
        """Returns who the caller is."""
        response = messages.GetCallerResponse(
            user=context.caller.name,
            roles=sorted(context.caller.roles),
            auth_method=context.identity.method,
            is_admin=not self._audit.is_on or self._audit.is_admin(context.caller),
        )
        for spec in self._build_pool.request_specs:
            if self._permissions.is_listed(context.identity, spec.name):
                operations = self._permissions.operations(context.identity, spec.name)
                response.permissions.add(type=spec.name, operations=operations)
        return response

    async def Version(  # noqa: N802
        self, request: messages.RequestManagerVersionRequest, context: CallContext
    ) -> messages.RequestManagerVersionResponse:
        """Returns the version of the API."""
        return messages.RequestManagerVersionResponse(version=API_VERSION)


def _describe(request: Request, request_id: str, request_type: str, user: str, built: BuiltRequest) -> None:
    request.id = request_id
    request.type = request_type
    request.state = state_pb2.STATE_PENDING
    request.user = user
    request.total_jobs = len(built.job_chain.jobs)
    request.total_tasks = built.tasks
    request.created_at.FromMicroseconds(time.time_ns() // 1000)  # The database stores microseconds.


def _begin_trace(context: CallContext, request_id: str, request_type: str) -> TraceContext | None:
    """Returns the trace of a new request, and notes the request in the log and in the span of the call."""
    trace = context.trace
    if trace is not None:
        trace_lines.add(request_id, trace)
    if context.span is not None:
        context.span.attributes.update({REQUEST_ID: request_id, REQUEST_TYPE: request_type})
    return trace


def _require_type(request_type: str) -> None:
    if not request_type:
        raise InvalidArgumentError("Type is empty, must be a request name", reason="TYPE_EMPTY", field="type")
