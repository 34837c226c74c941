"""The synchronous client of a Request Manager."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc

from spincycle_grpc import calls
from spincycle_grpc.call_trace import CallTrace, Trace
from spincycle_grpc.channels import open_channel
from spincycle_grpc.cut_entries import CutEntry, is_cut
from spincycle_grpc.errors import CallCancelledError, FailedPreconditionError, SpinCycleError
from spincycle_grpc.retries import DEFAULT_DEADLINE, PageTime, Tries, checked_deadline
from spincycle_grpc.rpc_errors import error_from_rpc, explained_error
from spincycle_grpc.state import State
from spincycle_grpc.tls_errors import ClientTls
from spincycle_grpc.tokens import CallTokens, Token, check_is_synchronous
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


class Client:
    """Calls a Request Manager. Threads may share a client.

    Every method raises the errors of `spincycle_grpc.errors`. An error of the server keeps its reason and
    request id. UnavailableError means that the server cannot be reached, and DeadlineExceededError that it
    did not answer in time.

    While the server is unavailable, the client retries a call for about a second if a second try cannot
    have a second effect. It never retries `start`.

    Args:
        address: host:port of the server's gRPC port.
        deadline: Seconds that a call may take, including its retries. Each method can override it.
        credentials: For TLS, from `spincycle_grpc.tls_credentials`. None: plain text.
        channel: A channel to use instead of a new one. The client does not close it.
        token: The token that identifies the user, or a function that returns it. The function is called once
            for each call, stream and poll; a retry of a call sends the same token. If it raises
            an exception, the call raises UnauthenticatedError with reason NO_TOKEN. Threads may call it at
            the same time.

            A token is sent in plain text only to this machine: to "localhost", a loopback address or a unix
            socket. gRPC does not say whether a given `channel` is encrypted, so there the token is sent over
            TLS only. If the channel is not encrypted, calls raise InvalidArgumentError with reason
            TOKEN_IN_PLAIN_TEXT.
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
        channel: grpc.Channel | None = None,
        token: Token | None = None,
        trace: Trace | None = None,
    ) -> None:
        check_is_synchronous(token)
        self._deadline = checked_deadline(deadline)
        self._client_tls = ClientTls(None if channel is not None else credentials is not None)
        self._tokens = CallTokens(token, address, credentials, is_own_channel=channel is None)
        self._trace = CallTrace(trace)
        self._address = address
        self._closed = threading.Event()
        self._streams: set[Any] = set()
        self._own_channel: grpc.Channel | None = None
        if channel is None:
            channel = self._own_channel = open_channel(address, credentials)
        self._stub = RequestManagerStub(channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the client. Its calls and waits, also in other threads, raise CallCancelledError."""
        self._closed.set()
        if self._own_channel is not None:
            self._own_channel.close()
        for stream in tuple(self._streams):
            stream.cancel()

    def create(
        self,
        type: str,  # noqa: A002 (the name in the contract)
        args: Mapping[str, object] | None = None,
        *,
        idempotency_key: str | None = None,
        strict_args: bool = False,
        deadline: float | None = None,
    ) -> Request:
        """Creates a request and starts it. Retries of the call do not create a second request.

        Args:
            type: The name of the request spec.
            args: Names to JSON values. Numbers of 2^53 or more are refused: pass them as strings.
            idempotency_key: 1 to 255 printable ASCII characters. Calls of one user with the same key create
                one request, even from different processes. The server remembers the key for one day. Use a
                random UUID, and store it before the call. None: a new key for this call.
            strict_args: Whether to refuse args that the spec does not name. Otherwise the server ignores
                them, unless it is configured to refuse them.
            deadline: Seconds for this call. None: the client's deadline.

        Returns:
            The request as created: PENDING, with args and without job chain.

        Raises:
            InvalidArgumentError: The type does not exist, or the args do not fit it.
            PermissionDeniedError: The caller may not start requests of this type.
            ConflictError: The key was used with another type or other args.
            UnavailableError, DeadlineExceededError: The request may have been created. Call again with the
                same key, or look for it with `find`.
        """
        return self._call(calls.create(type, args, idempotency_key, strict_args=strict_args), deadline)

    def plan(
        self,
        type: str,  # noqa: A002
        args: Mapping[str, object] | None = None,
        *,
        strict_args: bool = False,
        deadline: float | None = None,
    ) -> Request:
        """Returns the request that `create` would create, with job chain and without id, and stores nothing.

        Raises:
            InvalidArgumentError: The type does not exist, or the args do not fit it.
            PermissionDeniedError: The caller may not start requests of this type.
        """
        return self._joined(calls.plan(type, args, strict_args=strict_args), deadline)

    def find(
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
        """Returns the requests that match all filters, newest first, without args and job chains.

        Args:
            type: Requests of this type. Empty: all types.
            states: Requests in one of these states. Empty: all states.
            user: Requests of this user. Empty: all users.
            since: Requests that finished after this time or have not finished. A time without a time zone is
                local time.
            until: Requests that were created before this time.
            limit: The maximum number of requests to return. 0: no maximum.
            offset: The number of matching requests to skip. It needs a limit.
            args: Requests with all of these args.
            deadline: Seconds for this call. None: the client's deadline.

        Raises:
            InvalidArgumentError: A filter is malformed.
            DeadlineExceededError: The search took too long for the database. Reason: FIND_TOO_SLOW.
        """
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
        return self._joined(found, deadline)

    def iter_find(
        self, *, deadline: float | None = None, **filters: Unpack[calls.Filters]
    ) -> Iterator[Request]:
        """Yields the requests that `find` returns. It holds only one page of them, at most 3 MiB.

        Requests that are created meanwhile do not shift the pages.

        Args:
            deadline: Seconds for each page. None: the client's deadline.
            filters: As for `find`.
        """
        return self._items(calls.find(**filters), deadline)

    def get(self, request_id: str, *, with_job_chain: bool = True, deadline: float | None = None) -> Request:
        """Returns a request with its args and its job chain, which can be large.

        A chain that is too large for one response comes in pages.

        Raises:
            NotFoundError: The request does not exist.
        """
        started = time.monotonic()
        try:
            return self._call(calls.get(request_id, with_job_chain=with_job_chain), deadline)
        except FailedPreconditionError as error:
            if error.reason != "RESPONSE_TOO_LARGE":
                raise
        seconds = PageTime(self._deadline if deadline is None else deadline, started)
        request = self._call(calls.get(request_id, with_job_chain=False), seconds.left())
        job_chain = self._joined(calls.job_chain(request_id), seconds.left())
        request.job_chain.CopyFrom(job_chain)
        return request

    def start(self, request_id: str, *, deadline: float | None = None) -> None:
        """Starts a PENDING request.

        Raises:
            NotFoundError: The request does not exist.
            PermissionDeniedError: The caller may not start requests of this type.
            FailedPreconditionError: The request is not PENDING.
            UnavailableError: No Job Runner is alive, or the server cannot be reached.
        """
        self._call(calls.start(request_id), deadline)

    def stop(self, request_id: str, *, deadline: float | None = None) -> None:
        """Stops a request. Running jobs may take some seconds to stop. Use `wait` to wait for them.

        If it has `finally` nodes, these run first. A second stop skips them, so a call that fails because the
        server was away is not repeated.

        Raises:
            NotFoundError: The request does not exist.
            PermissionDeniedError: The caller may not stop requests of this type.
            FailedPreconditionError: The request has failed.
        """
        self._call(calls.stop(request_id), deadline)

    def retry(
        self,
        request_id: str,
        *,
        from_job: str = "",
        idempotency_key: str | None = None,
        deadline: float | None = None,
    ) -> Request:
        """Creates a request that does the rest of a FAIL or STOPPED one, and starts it.

        Jobs that are COMPLETE do not run again.

        Args:
            request_id: The id of the FAIL or STOPPED request.
            from_job: The id of a job, or the end of the path of a job or a sequence ("host web7",
                "host web7 / drain"), if no other path ends like this. It runs again with all jobs after
                it, even if they are COMPLETE. "": no COMPLETE job runs again.
            idempotency_key: As for `create`.
            deadline: Seconds for this call. None: the client's deadline.

        Returns:
            The new request as created: PENDING, with args and without job chain.

        Raises:
            NotFoundError: The request does not exist.
            PermissionDeniedError: The caller may neither retry nor start requests of this type.
            FailedPreconditionError: The request is not FAIL or STOPPED (WRONG_STATE), another retry has not
                ended (RETRY_NOT_ENDED), or its record does not say enough (RECORD_INCOMPLETE).
            InvalidArgumentError: `from_job` names no job, or several.
            ConflictError: The key was used for another call.
            UnavailableError, DeadlineExceededError: The request may have been created. Call again with the
                same key.
        """
        return self._call(calls.retry(request_id, from_job, idempotency_key), deadline)

    def pause(self, request_id: str, *, now: bool = False, deadline: float | None = None) -> None:
        """Pauses a request: no further job starts until `resume`. When its jobs have ended, it is SUSPENDED.

        Args:
            request_id: The id of the request.
            now: Whether to stop the running jobs. They run again after `resume`.
            deadline: Seconds for the call; None for the client's deadline.

        Raises:
            NotFoundError: There is no such request.
            PermissionDeniedError: The caller may not pause requests of this type.
            FailedPreconditionError: The request has ended or is being stopped, or its runner cannot pause.
        """
        self._call(calls.pause(request_id, now), deadline)

    def resume(self, request_id: str, *, deadline: float | None = None) -> None:
        """Ends the pause of a request. It continues where it was.

        Raises:
            NotFoundError: There is no such request.
            PermissionDeniedError: The caller may not pause requests of this type.
            FailedPreconditionError: The request is not paused. So is a retry after a success.
        """
        self._call(calls.resume(request_id), deadline)

    def approve(
        self,
        request_id: str,
        job_id: str = "",
        *,
        comment: str = "",
        number: int = 0,
        deadline: float | None = None,
    ) -> PendingApproval:
        """Approves what a request waits for. Returns the approval after the decision.

        Args:
            request_id: The id of the request.
            job_id: The job that waits; "" for the only one.
            comment: Why, at most 800 characters.
            number: The try that you have seen. The call fails if the job asks anew. 0: whichever waits.
            deadline: Seconds for the call; None for the client's deadline.

        Raises:
            NotFoundError: There is no such request.
            InvalidArgumentError: The comment is not valid, or the request waits for several approvals.
            PermissionDeniedError: The caller may not decide about it.
            FailedPreconditionError: The request does not wait for this approval.
        """
        return self._call(calls.approve(request_id, job_id, comment, number), deadline)

    def reject(
        self,
        request_id: str,
        job_id: str = "",
        *,
        comment: str = "",
        number: int = 0,
        deadline: float | None = None,
    ) -> PendingApproval:
        """Rejects what a request waits for. Its job is FAIL at once. See `approve`."""
        return self._call(calls.reject(request_id, job_id, comment, number), deadline)

    def list_approvals(
        self, *, only_mine: bool = False, deadline: float | None = None
    ) -> ListApprovalsResponse:
        """Returns the approvals that requests wait for, the oldest first, and whether there are more.

        Args:
            only_mine: Whether to return only those that the caller may decide now.
            deadline: Seconds for the call; None for the client's deadline.
        """
        return self._call(calls.list_approvals(only_mine), deadline)

    def job_chain(self, request_id: str, *, deadline: float | None = None) -> JobChain:
        """Returns the job chain of a request as created. Jobs that a retry does not run are COMPLETE.

        Raises:
            NotFoundError: The request does not exist.
        """
        return self._joined(calls.job_chain(request_id), deadline)

    def log(
        self, request_id: str, *, deadline: float | None = None, **filters: Unpack[calls.LogFilters]
    ) -> list[JobLog]:
        """Returns the finished tries of a request's jobs, sorted by job id and try.

        Output that is too large for a page is read with a call of its own.

        Args:
            request_id: The id of the request.
            deadline: Seconds for this call. None: the client's deadline.
            filters: Which tries to return: `states`, tries in one of these states; `job_id`, tries of one
                job; `latest_tries`, only the newest try of each job, to which `states` applies; `omit_noops`,
                no tries of jobs that only connect others; `newest_first`, instead of by job id; `page_size`,
                the maximum number of entries of one response.

        Raises:
            NotFoundError: The request does not exist.
        """
        seconds = PageTime(self._deadline if deadline is None else deadline)
        entries = self._joined(calls.log(request_id, **filters), seconds.left())
        return [self._completed(entry, seconds.left()) for entry in entries]

    def iter_log(
        self, request_id: str, *, deadline: float | None = None, **filters: Unpack[calls.LogFilters]
    ) -> Iterator[JobLog]:
        """Yields the entries that `log` returns. It holds only one page of them, at most 3 MiB.

        Args:
            request_id: The id of the request.
            deadline: Seconds for each page. None: the client's deadline.
            filters: As for `log`.
        """
        for entry in self._items(calls.log(request_id, **filters), deadline):
            yield self._completed(entry, self._deadline if deadline is None else deadline)

    def job_log(self, request_id: str, job_id: str, *, deadline: float | None = None) -> JobLog:
        """Returns the newest finished try of a job.

        Raises:
            NotFoundError: The request or the job does not exist, or the job has not finished a try.
        """
        seconds = PageTime(self._deadline if deadline is None else deadline)
        entry = self._call(calls.job_log(request_id, job_id), seconds.left())
        return self._completed(entry, seconds.left())

    def request_list(self, *, deadline: float | None = None) -> list[RequestSpec]:
        """Returns the types of requests, sorted by name, each with its required args first."""
        return self._call(calls.request_list(), deadline)

    def running(self, request_id: str = "", *, deadline: float | None = None) -> RunningStatus:
        """Returns the running jobs of one request or of all, oldest first, and their requests."""
        return self._call(calls.running(request_id), deadline)

    def list_audit_events(
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
        return self._call(listed, deadline)

    def count_requests(
        self, *, deadline: float | None = None, **filters: Unpack[calls.CountFilters]
    ) -> dict[State, StateCount]:
        """Counts the requests that match all filters, by state.

        Args:
            deadline: Seconds for the call. None: the client's deadline.
            filters: As for `find`, without `limit` and `offset`.

        Returns:
            A count for each of the states, or for every state. If `more` is set, there may be more requests:
            the server counts at most 10,000 for each state.

        Raises:
            InvalidArgumentError: A filter is malformed.
            DeadlineExceededError: The search took too long for the database. Reason: FIND_TOO_SLOW.
        """
        return self._call(calls.count_requests(**filters), deadline)

    def list_runners(self, *, deadline: float | None = None) -> list[Runner]:
        """Returns the Job Runners that are alive, sorted by id."""
        return self._joined(calls.list_runners(), deadline)

    def list_limits(
        self, key: str = "", *, request_id: str = "", deadline: float | None = None
    ) -> list[HeldLimit]:
        """Returns the keys of limits that requests and their sequences hold or wait for, with these.

        Args:
            key: Only this key; "" for all.
            request_id: Only keys that this request or its sequences hold or wait for; "" for all. Without
                such a request, there are none.
            deadline: Seconds for the whole call.
        """
        return self._joined(calls.list_limits(key, request_id), deadline)

    def get_configuration(self, *, deadline: float | None = None) -> GetConfigurationResponse:
        """Returns the server's options without secrets, its version and its health.

        Raises:
            PermissionDeniedError: The caller has no admin role.
        """
        return self._call(calls.get_configuration(), deadline)

    def list_deliveries(
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
        """Returns the deliveries of notifications that match all filters, newest first.

        Args:
            request_id: Deliveries about this request. Empty: all.
            target: Deliveries to this target. Empty: all targets.
            event_id: Deliveries of this event. Empty: all events.
            state: Deliveries in this state, a `DeliveryState`. 0: all states.
            limit: The maximum number of deliveries, at most 1,000. 0: 100.
            page_token: The `next_page_token` of the previous page, with the same filters. Empty: first page.
            deadline: Seconds for this call. None: the client's deadline.

        Returns:
            The deliveries, the names of the server's targets, and `next_page_token`, which is empty on the
            last page.

        Raises:
            PermissionDeniedError: The caller has no admin role.
            InvalidArgumentError: A filter is malformed.
        """
        listed = calls.list_deliveries(
            request_id=request_id,
            target=target,
            event_id=event_id,
            state=state,
            limit=limit,
            page_token=page_token,
        )
        return self._call(listed, deadline)

    def redeliver(self, event_id: str, target: str, *, deadline: float | None = None) -> None:
        """Sends an event to a target again, if its delivery has ended.

        Raises:
            PermissionDeniedError: The caller has no admin role.
            NotFoundError: There is no such delivery. Reason: DELIVERY_NOT_FOUND.
            FailedPreconditionError: It has not ended. Reason: DELIVERY_WAITING.
        """
        self._call(calls.redeliver(event_id, target), deadline)

    def send_test_notification(self, target: str, *, deadline: float | None = None) -> str:
        """Sends a test event to a target. Returns the id of the event.

        Raises:
            PermissionDeniedError: The caller has no admin role.
            NotFoundError: The server has no such target. Reason: TARGET_NOT_FOUND.
        """
        return self._call(calls.send_test_notification(target), deadline)

    def get_caller(self, *, deadline: float | None = None) -> GetCallerResponse:
        """Returns who the server says calls: name, roles, and what the caller may do."""
        return self._call(calls.get_caller(), deadline)

    def version(self, *, deadline: float | None = None) -> str:
        """Returns the version of the server's API, for example "1.0.12"."""
        return self._call(calls.version(), deadline)

    def wait(
        self,
        request_id: str,
        deadline: float | None = None,
        on_change: Callable[[Request], None] | None = None,
    ) -> Request:
        """Waits until a request is COMPLETE, FAIL or STOPPED.

        The server reports changes as they happen. An older server, or one that has no room for another
        watcher, is polled instead.

        An exception in `on_change`, Ctrl-C or `close` in another thread ends the wait, but not the request.

        Args:
            request_id: The id of the request.
            deadline: Seconds to wait. None: no limit.
            on_change: Called with the request, without its args, when the wait begins, and when its state or
                its number of jobs has changed.

        Returns:
            The request in its final state, without job chain.

        Raises:
            NotFoundError: The request does not exist.
            DeadlineExceededError: The request has not ended in time. Reason: WAITED_TOO_LONG.
            UnavailableError: The server was unavailable for the client's whole deadline.
            CallCancelledError: The client was closed. Reason: CLIENT_CLOSED.
        """
        schedule = PollSchedule(request_id, deadline)
        changes = ChangeNotifier(on_change)
        watch: ResumedStream[WatchResponse] = ResumedStream(
            "Watch", calls.watch(request_id, None, ""), deadline, self._deadline
        )
        try:
            with contextlib.closing(self._stream(watch)) as messages:
                for message in messages:
                    for request in message.requests:
                        changes.update(request)
        except SpinCycleError as error:
            if not is_polled_instead(error):
                raise
        return self._polled(schedule, changes)

    def watch(
        self,
        request_id: str = "",
        *,
        filter: RequestFilter | None = None,  # noqa: A002 (the name in the contract)
        cursor: str = "",
        deadline: float | None = None,
    ) -> Generator[WatchResponse, None, None]:
        """Watches one request until it has ended, or all requests that match a filter.

        Yields the current state, then every change: the newest state of requests, and each finished try once.
        The contract of RequestManager.Watch describes the messages. A message with a cursor alone says that
        there is nothing new.

        If a stream breaks, because the server stops or the caller is too slow, the client opens another one
        that continues after the last message. It does so for at most the client's deadline without a
        message. Each stream gets a new token.

        Args:
            request_id: The id of the request. Empty: `filter` says which requests.
            filter: The requests to watch. None, without a request id: all requests.
            cursor: Continue after the message with this cursor. Empty: begin with the current state.
            deadline: Seconds for the whole watch. None: no limit.

        Raises:
            NotFoundError: The request does not exist.
            InvalidArgumentError: The cursor is not of this request or filter, or the filter is malformed.
            DeadlineExceededError: The deadline has passed. Reason: WAITED_TOO_LONG.
            UnavailableError: The server was unavailable for the client's whole deadline.
            ResourceExhaustedError: The server accepts no more watchers. Reason: TOO_MANY_WATCHERS.
            UnimplementedError: The server is older, and cannot be watched.
            CallCancelledError: The client was closed. Reason: CLIENT_CLOSED.
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
    ) -> Generator[FollowOutputResponse, None, None]:
        """Yields the output of one try of a job while the job writes it, and the end of the try.

        The contract of RequestManager.FollowOutput describes the messages. A message with a cursor alone says
        that there is nothing new. If a stream breaks, the client continues as in `watch`.

        Args:
            request_id: The id of the request.
            job_id: The id of the job.
            try_number: The number of the try, which is awaited. 0: the newest try.
            stdout_offset: Where to begin in stdout, in bytes of UTF-8.
            stderr_offset: Where to begin in stderr, in bytes of UTF-8.
            cursor: Continue after the message with this cursor, instead of at the offsets.
            deadline: Seconds for the whole stream. None: no limit.

        Raises:
            NotFoundError: The request or the job does not exist, or the request has ended without the try.
            InvalidArgumentError: An offset is beyond the end of the output, or the cursor is not of this job.
            DeadlineExceededError: The deadline has passed. Reason: WAITED_TOO_LONG.
            UnavailableError: The server was unavailable for the client's whole deadline.
            ResourceExhaustedError: Too many callers follow output. Reason: TOO_MANY_FOLLOWERS.
            CallCancelledError: The client was closed. Reason: CLIENT_CLOSED.
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

    def _stream(self, resumed: ResumedStream[_Response]) -> Generator[_Response, None, None]:
        while True:
            self._check_open()
            stream = self._opened_stream(resumed)
            try:
                for message in stream:
                    resumed.add(message)
                    yield message
                return
            except grpc.RpcError as error:
                self._check_open()
                pause = resumed.pause_after(error_from_rpc(error, self._address, self._client_tls))
                if pause is None:
                    raise self._error_of(error) from error
            finally:
                stream.cancel()
                self._streams.discard(stream)
            self._sleep(pause)

    def _opened_stream(self, resumed: ResumedStream[Any]) -> Any:
        options = self._trace.add_to(self._tokens.options())
        try:
            stream = getattr(self._stub, resumed.method)(
                resumed.request, timeout=resumed.timeout(), **options
            )
        except ValueError:  # gRPC raises it if the channel is closed.
            self._check_open()
            raise
        self._streams.add(stream)
        return stream

    def _polled(self, schedule: PollSchedule, changes: ChangeNotifier) -> Request:
        """Polls a request until it has ended. Polls are at most half a second apart."""
        poll = calls.get(schedule.request_id, with_job_chain=False)
        while True:
            with schedule.poll(self._deadline) as seconds:
                request = self._call(poll, seconds, max_tries=math.inf)
            changes.update(request)
            if is_final(request):
                return request
            self._sleep(schedule.next_pause())

    def _completed(self, entry: JobLog, seconds: float) -> JobLog:
        """Returns an entry with its whole output, which may take some seconds."""
        if is_cut(entry):
            rest = CutEntry(entry)
            stream: ResumedStream[FollowOutputResponse]
            stream = ResumedStream("FollowOutput", rest.request(), seconds, self._deadline)
            for response in self._stream(stream):
                rest.add(response)
            rest.finish()
        return entry

    def _joined(self, call: calls.PagedCall[_Answer, _Item], deadline: float | None) -> _Answer:
        seconds = PageTime(self._deadline if deadline is None else deadline)
        return call.join(self._pages(call, seconds.left))

    def _items(self, call: calls.PagedCall[Any, _Item], deadline: float | None) -> Iterator[_Item]:
        for page in self._pages(call, lambda: deadline):
            yield from call.items(page)

    def _pages(self, call: calls.PagedCall[Any, Any], seconds: Callable[[], float | None]) -> Iterator[Any]:
        """Yields the responses of all pages. Each may take the seconds that the function returns."""
        page: calls.Call[Any] | None = call.first
        while page is not None:
            response = self._call(page, seconds())
            yield response
            page = call.next(response)

    def _call(
        self, call: calls.Call[_Answer], deadline: float | None, *, max_tries: float | None = None
    ) -> _Answer:
        tries = Tries(
            self._deadline if deadline is None else checked_deadline(deadline),
            call.max_tries if max_tries is None else max_tries,
        )
        method = getattr(self._stub, call.method)
        self._check_open()
        options = self._trace.add_to(self._tokens.options())
        while True:
            self._check_open()
            try:
                return call.read(method(call.request, timeout=tries.begin(), **options))
            except grpc.RpcError as error:
                wait = tries.wait_after(error)
                if wait is None:
                    self._check_open()
                    raise self._error_of(error) from error
            except ValueError:  # gRPC raises it if the channel is closed.
                self._check_open()
                raise
            self._sleep(wait)

    def _error_of(self, error: grpc.RpcError) -> SpinCycleError:
        return self._tokens.error_of(error) or explained_error(error, self._address, self._client_tls)

    def _sleep(self, seconds: float) -> None:
        self._closed.wait(seconds)
        self._check_open()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise CallCancelledError("the client is closed: create a new one", reason="CLIENT_CLOSED")
