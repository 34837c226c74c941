"""The client of a Request Manager for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
import grpc.aio

from spincycle_grpc import calls
from spincycle_grpc.call_trace import CallTrace, Trace
from spincycle_grpc.channels import open_async_channel
from spincycle_grpc.cut_entries import CutEntry, is_cut
from spincycle_grpc.errors import CallCancelledError, FailedPreconditionError, SpinCycleError
from spincycle_grpc.retries import DEFAULT_DEADLINE, PageTime, Tries, checked_deadline
from spincycle_grpc.rpc_errors import error_from_rpc, explained_async_error
from spincycle_grpc.state import State
from spincycle_grpc.tls_errors import ClientTls
from spincycle_grpc.tokens import AsyncToken, CallTokens
from spincycle_grpc.v1.approval_pb2 import PendingApproval
from spincycle_grpc.v1.installation_pb2 import Runner, StateCount
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_grpc.v1.limit_pb2 import HeldLimit
from spincycle_grpc.v1.request_manager_pb2 import (
    FollowOutputResponse,
    GetCallerResponse,
    GetConfigurationResponse,
    ListApprovalsResponse,
    ListAuditEventsResponse,
    ListDeliveriesResponse,
    WatchResponse,
)
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from spincycle_grpc.v1.request_pb2 import Request, RequestFilter, RequestSpec
from spincycle_grpc.v1.status_pb2 import RunningStatus
from spincycle_grpc.waiting import ChangeNotifier, PollSchedule, is_final, is_polled_instead
from spincycle_grpc.watching import ResumedStream

_Answer = TypeVar("_Answer")
_Response = TypeVar("_Response", WatchResponse, FollowOutputResponse)
_Item = TypeVar("_Item")


class AsyncClient:
    """Calls a Request Manager from asyncio. A client belongs to the event loop of its first call.

    Deadlines, errors and retries are as in `Client`. Calls and waits can be cancelled.

    Args:
        address: host:port of the server's gRPC port.
        deadline: Seconds that a call may take, including its retries. Each method can override it.
        credentials: For TLS, from `spincycle_grpc.tls_credentials`. None: plain text.
        channel: A channel to use instead of a new one. The client does not close it.
        token: The token that identifies the user, or a function or coroutine function that returns it, as in
            `Client`. The call's deadline includes the time of a coroutine function. A plain function must
            not block.
        trace: The W3C trace that calls belong to: a traceparent, a `TraceContext`, or a function that returns
            one of them, or None, for each call. A malformed traceparent is ignored. None: the current
            OpenTelemetry span, if the program has one.

    Raises:
        InvalidArgumentError: The deadline is not positive, the token is malformed, or it would be sent to
            another machine in plain text.
    """

    def __init__(
        self,
        address: str = calls.DEFAULT_ADDRESS,
        *,
        deadline: float = DEFAULT_DEADLINE,
        credentials: grpc.ChannelCredentials | None = None,
        channel: grpc.aio.Channel | None = None,
        token: AsyncToken | None = None,
        trace: Trace | None = None,
    ) -> None:
        self._deadline = checked_deadline(deadline)
        self._client_tls = ClientTls(None if channel is not None else credentials is not None)
        self._tokens = CallTokens(token, address, credentials, is_own_channel=channel is None)
        self._trace = CallTrace(trace)
        self._address = address
        self._credentials = credentials
        self._channel = channel
        self._owns_channel = channel is None
        self._stub: RequestManagerStub | None = None
        self._is_closed = False
        self._streams: set[Any] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the client. Its calls and waits, also in other tasks, raise CallCancelledError."""
        self._is_closed = True
        if self._owns_channel and self._channel is not None:
            await self._channel.close()
        for stream in tuple(self._streams):
            stream.cancel()

    async def create(
        self,
        type: str,  # noqa: A002 (the name in the contract)
        args: Mapping[str, object] | None = None,
        *,
        idempotency_key: str | None = None,
        strict_args: bool = False,
        deadline: float | None = None,
    ) -> Request:
        """Creates a request and starts it. See `Client.create`."""
        return await self._call(calls.create(type, args, idempotency_key, strict_args=strict_args), deadline)

    async def plan(
        self,
        type: str,  # noqa: A002
        args: Mapping[str, object] | None = None,
        *,
        strict_args: bool = False,
        deadline: float | None = None,
    ) -> Request:
        """Returns the request that `create` would create. See `Client.plan`."""
        return await self._joined(calls.plan(type, args, strict_args=strict_args), deadline)

    async def find(
        self,
        *,
        type: str = "",  # noqa: A002
        states: Iterable[int] = (),
        user: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 0,
        offset: int = 0,
        args: Mapping[str, object] | None = None,
        deadline: float | None = None,
    ) -> list[Request]:
        """Returns the requests that match all filters, newest first. See `Client.find`."""
        found = calls.find(
            type=type,
            states=states,
            user=user,
            since=since,
            until=until,
            limit=limit,
            offset=offset,
            args=args,
        )
        return await self._joined(found, deadline)

    async def iter_find(
        self, *, deadline: float | None = None, **filters: Unpack[calls.Filters]
    ) -> AsyncIterator[Request]:
        """Yields the requests that match all filters, newest first. See `Client.iter_find`."""
        async for request in self._items(calls.find(**filters), deadline):
            yield request

    async def get(
        self, request_id: str, *, with_job_chain: bool = True, deadline: float | None = None
    ) -> Request:
        """Returns a request. See `Client.get`."""
        started = time.monotonic()
        try:
            return await self._call(calls.get(request_id, with_job_chain=with_job_chain), deadline)
        except FailedPreconditionError as error:
            if error.reason != "RESPONSE_TOO_LARGE":
                raise
        seconds = PageTime(self._deadline if deadline is None else deadline, started)
        request = await self._call(calls.get(request_id, with_job_chain=False), seconds.left())
        job_chain = await self._joined(calls.job_chain(request_id), seconds.left())
        request.job_chain.CopyFrom(job_chain)
        return request

    async def start(self, request_id: str, *, deadline: float | None = None) -> None:
        """Starts a PENDING request. See `Client.start`."""
        await self._call(calls.start(request_id), deadline)

    async def stop(self, request_id: str, *, deadline: float | None = None) -> None:
        """Stops a request. See `Client.stop`."""
        await self._call(calls.stop(request_id), deadline)

    async def retry(
        self,
        request_id: str,
        *,
        from_job: str = "",
        idempotency_key: str | None = None,
        deadline: float | None = None,
    ) -> Request:
        """Creates a request that does the rest of a FAIL or STOPPED one. See `Client.retry`."""
        return await self._call(calls.retry(request_id, from_job, idempotency_key), deadline)

    async def pause(self, request_id: str, *, now: bool = False, deadline: float | None = None) -> None:
        """Pauses a request. See `Client.pause`."""
        await self._call(calls.pause(request_id, now), deadline)

    async def resume(self, request_id: str, *, deadline: float | None = None) -> None:
        """Ends the pause of a request. See `Client.resume`."""
        await self._call(calls.resume(request_id), deadline)

    async def approve(
        self,
        request_id: str,
        job_id: str = "",
        *,
        comment: str = "",
        number: int = 0,
        deadline: float | None = None,
    ) -> PendingApproval:
        """Approves what a request waits for. See `Client.approve`."""
        return await self._call(calls.approve(request_id, job_id, comment, number), deadline)

    async def reject(
        self,
        request_id: str,
        job_id: str = "",
        *,
        comment: str = "",
        number: int = 0,
        deadline: float | None = None,
    ) -> PendingApproval:
        """Rejects what a request waits for. See `Client.reject`."""
        return await self._call(calls.reject(request_id, job_id, comment, number), deadline)

    async def list_approvals(
        self, *, only_mine: bool = False, deadline: float | None = None
    ) -> ListApprovalsResponse:
        """Returns the approvals that requests wait for. See `Client.list_approvals`."""
        return await self._call(calls.list_approvals(only_mine), deadline)

    async def job_chain(self, request_id: str, *, deadline: float | None = None) -> JobChain:
        """Returns the job chain of a request as created. See `Client.job_chain`."""
        return await self._joined(calls.job_chain(request_id), deadline)

    async def log(
        self, request_id: str, *, deadline: float | None = None, **filters: Unpack[calls.LogFilters]
    ) -> list[JobLog]:
        """Returns the finished tries of a request's jobs. See `Client.log`."""
        seconds = PageTime(self._deadline if deadline is None else deadline)
        entries = await self._joined(calls.log(request_id, **filters), seconds.left())
        return [await self._completed(entry, seconds.left()) for entry in entries]

    async def iter_log(
        self, request_id: str, *, deadline: float | None = None, **filters: Unpack[calls.LogFilters]
    ) -> AsyncIterator[JobLog]:
        """Yields the finished tries of a request's jobs. See `Client.iter_log`."""
        async for entry in self._items(calls.log(request_id, **filters), deadline):
            yield await self._completed(entry, self._deadline if deadline is None else deadline)

    async def job_log(self, request_id: str, job_id: str, *, deadline: float | None = None) -> JobLog:
        """Returns the newest finished try of a job. See `Client.job_log`."""
        seconds = PageTime(self._deadline if deadline is None else deadline)
        entry = await self._call(calls.job_log(request_id, job_id), seconds.left())
        return await self._completed(entry, seconds.left())

    async def request_list(self, *, deadline: float | None = None) -> list[RequestSpec]:
        """Returns the types of requests. See `Client.request_list`."""
        return await self._call(calls.request_list(), deadline)

    async def running(self, request_id: str = "", *, deadline: float | None = None) -> RunningStatus:
        """Returns the running jobs and their requests. See `Client.running`."""
        return await self._call(calls.running(request_id), deadline)

    async def list_audit_events(
        self,
        *,
        request_id: str = "",
        user: str = "",
        operation: str = "",
        outcome: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 0,
        page_token: str = "",
        deadline: float | None = None,
    ) -> ListAuditEventsResponse:
        """Returns the events of the audit log that match all filters, newest first.

        A caller without an admin role must give a request that the caller may view.

        Args:
            request_id: Events about this request. Empty: all events.
            user: Events of this user. Empty: all users.
            operation: Events of this operation, for example "RequestManager.Create". Empty: all operations.
            outcome: Events with this outcome: "OK", or the reason of a denial. Empty: all outcomes.
            since: Events at or after this time. A time without a time zone is local time.
            until: Events before this time.
            limit: The maximum number of events, at most 1,000. 0: 100.
            page_token: The `next_page_token` of the previous page, with the same filters. Empty: first page.
            deadline: Seconds for this call. None: the client's deadline.

        Returns:
            The events and `next_page_token`, which is empty on the last page.

        Raises:
            FailedPreconditionError: The server does not authenticate users. Reason: AUDIT_OFF.
            PermissionDeniedError: The caller may not see these events.
            NotFoundError: The request does not exist, and the caller has no admin role.
            InvalidArgumentError: A filter is malformed.
        """
        listed = calls.list_audit_events(
            request_id=request_id,
            user=user,
            operation=operation,
            outcome=outcome,
            since=since,
            until=until,
            limit=limit,
            page_token=page_token,
        )
        return await self._call(listed, deadline)

    async def count_requests(
        self, *, deadline: float | None = None, **filters: Unpack[calls.CountFilters]
    ) -> dict[State, StateCount]:
        """Counts the requests that match all filters, by state. See `Client.count_requests`."""
        return await self._call(calls.count_requests(**filters), deadline)

    async def list_runners(self, *, deadline: float | None = None) -> list[Runner]:
        """Returns the Job Runners that are alive, sorted by id. See `Client.list_runners`."""
        return await self._joined(calls.list_runners(), deadline)

    async def list_limits(
        self, key: str = "", *, request_id: str = "", deadline: float | None = None
    ) -> list[HeldLimit]:
        """Returns the keys of limits that requests hold or wait for. See `Client.list_limits`."""
        return await self._joined(calls.list_limits(key, request_id), deadline)

    async def get_configuration(self, *, deadline: float | None = None) -> GetConfigurationResponse:
        """Returns the server's options, version and health. See `Client.get_configuration`."""
        return await self._call(calls.get_configuration(), deadline)

    async def list_deliveries(
        self,
        *,
        request_id: str = "",
        target: str = "",
        event_id: str = "",
        state: int = 0,
        limit: int = 0,
        page_token: str = "",
        deadline: float | None = None,
    ) -> ListDeliveriesResponse:
        """Returns the deliveries that match all filters, newest first. See `Client.list_deliveries`."""
        listed = calls.list_deliveries(
            request_id=request_id,
            target=target,
            event_id=event_id,
            state=state,
            limit=limit,
            page_token=page_token,
        )
        return await self._call(listed, deadline)

    async def redeliver(self, event_id: str, target: str, *, deadline: float | None = None) -> None:
        """Sends an event to a target again, if its delivery has ended. See `Client.redeliver`."""
        await self._call(calls.redeliver(event_id, target), deadline)

    async def send_test_notification(self, target: str, *, deadline: float | None = None) -> str:
        """Sends a test event to a target. Returns its id. See `Client.send_test_notification`."""
        return await self._call(calls.send_test_notification(target), deadline)

    async def get_caller(self, *, deadline: float | None = None) -> GetCallerResponse:
        """Returns who the server says calls. See `Client.get_caller`."""
        return await self._call(calls.get_caller(), deadline)

    async def version(self, *, deadline: float | None = None) -> str:
        """Returns the version of the server's API. See `Client.version`."""
        return await self._call(calls.version(), deadline)

    async def wait(
        self,
        request_id: str,
        deadline: float | None = None,
        on_change: Callable[[Request], None] | None = None,
    ) -> Request:
        """Waits until a request is COMPLETE, FAIL or STOPPED. See `Client.wait`."""
        schedule = PollSchedule(request_id, deadline)
        changes = ChangeNotifier(on_change)
        watch: ResumedStream[WatchResponse] = ResumedStream(
            "Watch", calls.watch(request_id, None, ""), deadline, self._deadline
        )
        try:
            async with contextlib.aclosing(self._stream(watch)) as messages:
                async for message in messages:
                    for request in message.requests:
                        changes.update(request)
        except SpinCycleError as error:
            if not is_polled_instead(error):
                raise
        return await self._polled(schedule, changes)

    def watch(
        self,
        request_id: str = "",
        *,
        filter: RequestFilter | None = None,  # noqa: A002 (the name in the contract)
        cursor: str = "",
        deadline: float | None = None,
    ) -> AsyncGenerator[WatchResponse, None]:
        """Watches one request, or all requests that match a filter. See `Client.watch`.

        If you leave the loop before its end, close the generator, for example with `contextlib.aclosing`.
        """
        request = calls.watch(request_id, filter, cursor)
        return self._stream(ResumedStream("Watch", request, deadline, self._deadline))

    def follow_output(
        self,
        request_id: str,
        job_id: str,
        *,
        try_number: int = 0,
        stdout_offset: int = 0,
        stderr_offset: int = 0,
        cursor: str = "",
        deadline: float | None = None,
    ) -> AsyncGenerator[FollowOutputResponse, None]:
        """Yields the output of one try of a job while the job writes it. See `Client.follow_output`.

        If you leave the loop before its end, close the generator, for example with `contextlib.aclosing`.
        """
        request = calls.follow_output(
            request_id,
            job_id,
            try_number=try_number,
            stdout_offset=stdout_offset,
            stderr_offset=stderr_offset,
            cursor=cursor,
        )
        return self._stream(ResumedStream("FollowOutput", request, deadline, self._deadline))

    async def _stream(self, resumed: ResumedStream[_Response]) -> AsyncGenerator[_Response, None]:
        while True:
            stream = await self._opened_stream(resumed)
            try:
                async for message in stream:
                    resumed.add(message)
                    yield message
                return
            except grpc.RpcError as error:
                self._check_open()
                pause = resumed.pause_after(error_from_rpc(error, self._address, self._client_tls))
                if pause is None:
                    raise await self._error_of(error) from error
            except grpc.aio.UsageError as error:
                raise self._tokens.error_of(error) or error from error
            except asyncio.CancelledError:
                self._check_not_closed_by_cancel()
                raise
            finally:
                stream.cancel()
                self._streams.discard(stream)
            await asyncio.sleep(pause)

    async def _opened_stream(self, resumed: ResumedStream[Any]) -> Any:
        self._check_open()
        options = self._trace.add_to(await self._tokens.async_options(self._deadline))
        self._check_open()
        stream = getattr(self._opened_stub(), resumed.method)(
            resumed.request, timeout=resumed.timeout(), **options
        )
        self._streams.add(stream)
        return stream

    async def _polled(self, schedule: PollSchedule, changes: ChangeNotifier) -> Request:
        """Polls a request until it has ended. Polls are at most half a second apart."""
        poll = calls.get(schedule.request_id, with_job_chain=False)
        while True:
            with schedule.poll(self._deadline) as seconds:
                request = await self._call(poll, seconds, max_tries=math.inf)
            changes.update(request)
            if is_final(request):
                return request
            await asyncio.sleep(schedule.next_pause())

    async def _completed(self, entry: JobLog, seconds: float) -> JobLog:
        """Returns an entry with its whole output, which may take some seconds."""
        if is_cut(entry):
            rest = CutEntry(entry)
            stream: ResumedStream[FollowOutputResponse]
            stream = ResumedStream("FollowOutput", rest.request(), seconds, self._deadline)
            async for response in self._stream(stream):
                rest.add(response)
            rest.finish()
        return entry

    async def _joined(self, call: calls.PagedCall[_Answer, _Item], deadline: float | None) -> _Answer:
        seconds = PageTime(self._deadline if deadline is None else deadline)
        return call.join([page async for page in self._pages(call, seconds.left)])

    async def _items(self, call: calls.PagedCall[Any, _Item], deadline: float | None) -> AsyncIterator[_Item]:
        async for page in self._pages(call, lambda: deadline):
            for item in call.items(page):
                yield item

    async def _pages(
        self, call: calls.PagedCall[Any, Any], seconds: Callable[[], float | None]
    ) -> AsyncIterator[Any]:
        """Yields the responses of all pages. Each may take the seconds that the function returns."""
        page: calls.Call[Any] | None = call.first
        while page is not None:
            response = await self._call(page, seconds())
            yield response
            page = call.next(response)

    async def _call(
        self, call: calls.Call[_Answer], deadline: float | None, *, max_tries: float | None = None
    ) -> _Answer:
        seconds = self._deadline if deadline is None else checked_deadline(deadline)
        tries = Tries(seconds, call.max_tries if max_tries is None else max_tries)
        self._check_open()
        options = self._trace.add_to(await self._tokens.async_options(seconds))
        while True:
            self._check_open()
            method = getattr(self._opened_stub(), call.method)
            try:
                return call.read(await method(call.request, timeout=tries.begin(), **options))
            except grpc.RpcError as error:
                wait = tries.wait_after(error)
                if wait is None:
                    self._check_open()
                    raise await self._error_of(error) from error
            except grpc.aio.UsageError as error:
                raise self._tokens.error_of(error) or error from error
            except asyncio.CancelledError:
                self._check_not_closed_by_cancel()
                raise
            await asyncio.sleep(wait)

    async def _error_of(self, error: grpc.RpcError) -> SpinCycleError:
        return self._tokens.error_of(error) or await explained_async_error(
            error, self._address, self._client_tls
        )

    def _opened_stub(self) -> RequestManagerStub:
        """Returns the stub. The first call creates it, because a channel belongs to an event loop."""
        if self._stub is None:
            if self._channel is None:
                self._channel = open_async_channel(self._address, self._credentials)
            self._stub = RequestManagerStub(self._channel)
        return self._stub

    def _check_not_closed_by_cancel(self) -> None:
        """Finds out why a call was cancelled: closing the channel cancels calls, but not their tasks.

        Raises:
            CallCancelledError: The client was closed. Reason: CLIENT_CLOSED.
        """
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            self._check_open()

    def _check_open(self) -> None:
        if self._is_closed:
            raise CallCancelledError("the client is closed: create a new one", reason="CLIENT_CLOSED")
