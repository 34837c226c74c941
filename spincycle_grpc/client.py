"""The synchronous client of a Request Manager."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar

import grpc

from spincycle_grpc import calls
from spincycle_grpc.channels import open_channel
from spincycle_grpc.errors import CallCancelledError
from spincycle_grpc.retries import DEFAULT_DEADLINE, Tries, checked_deadline
from spincycle_grpc.rpc_errors import error_from_rpc
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from spincycle_grpc.v1.request_pb2 import Request, RequestSpec
from spincycle_grpc.v1.status_pb2 import RunningStatus
from spincycle_grpc.waiting import Changes, Wait, is_final

_Answer = TypeVar("_Answer")


class Client:
    """Calls a Request Manager.

    Threads may share a client. Each call has a deadline, and raises the classes of
    `spincycle_grpc.errors`: what the server raised, with its reason and the request it is about,
    UnavailableError when the server cannot be reached, DeadlineExceededError. Calls that may be
    repeated are tried a few times while the server is unavailable; `start` never is, since it may
    have had its effect.

    Args:
        address: host:port of the server's gRPC.
        deadline: Seconds that each call may take, its tries together, unless it says otherwise.
        credentials: For TLS, from grpc.ssl_channel_credentials; None: plain text.
        channel: A channel to use in place of one of the client's own. It is left open.

    Raises:
        InvalidArgumentError: The deadline is not positive.
    """

    def __init__(
        self,
        address: str = calls.DEFAULT_ADDRESS,
        *,
        deadline: float = DEFAULT_DEADLINE,
        credentials: grpc.ChannelCredentials | None = None,
        channel: grpc.Channel | None = None,
    ) -> None:
        self._deadline = checked_deadline(deadline)
        self._address = address
        self._closed = threading.Event()
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
        """Ends the client: calls and waits of other threads raise CallCancelledError, as do later ones."""
        self._closed.set()
        if self._own_channel is not None:
            self._own_channel.close()

    def create(
        self,
        type: str,  # noqa: A002 (what the contract calls it)
        args: Mapping[str, object] | None = None,
        *,
        idempotency_key: str | None = None,
        deadline: float | None = None,
    ) -> Request:
        """Makes a request and starts it. The tries of one call make one request.

        Args:
            type: The name of the request spec.
            args: Names to JSON values. Whole numbers are exact up to 2^53.
            idempotency_key: Makes calls with the same key make one request, for a day, also those of
                other processes of the same user: 1 to 255 printable ASCII characters, as a random
                UUID that the caller stores before it calls. None: one for this call alone.
            deadline: Seconds for this call; None: the client's.

        Returns:
            The request as made: PENDING, with args and without job chain.

        Raises:
            InvalidArgumentError: There is no such type, or the args do not fit it.
            ConflictError: The key was used with another type or other args.
            UnavailableError, DeadlineExceededError: The request may have been made all the same:
                another call with the same key, or else `find`, tells.
        """
        return self._call(calls.create(type, args, idempotency_key), deadline)

    def plan(
        self,
        type: str,  # noqa: A002
        args: Mapping[str, object] | None = None,
        *,
        deadline: float | None = None,
    ) -> Request:
        """Returns what `create` would make, with job chain and without id; nothing is stored or started.

        Raises:
            InvalidArgumentError: As `create`.
        """
        return self._call(calls.plan(type, args), deadline)

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
        """Finds requests: those that all filters let through.

        Args:
            type: Requests of this type; empty: of all.
            states: Requests in one of these; none: in all.
            user: Requests of this user; empty: of all.
            since: Requests that were not finished before. A time without zone is local time.
            until: Requests that were created before.
            limit: At most so many; 0: all of them.
            offset: Leave out so many of the newest. Only with a limit.
            args: Requests with all of these args.
            deadline: Seconds for this call; None: the client's.

        Returns:
            The requests without args and job chains, newest first.

        Raises:
            InvalidArgumentError: A filter makes no sense.
        """
        found = calls.find(
            request_type=type,
            states=states,
            user=user,
            since=since,
            until=until,
            limit=limit,
            offset=offset,
            args=args,
        )
        return self._call(found, deadline)

    def get(self, request_id: str, *, with_job_chain: bool = True, deadline: float | None = None) -> Request:
        """Returns a request with its args and its job chain, or without the latter, which can be large.

        Raises:
            NotFoundError: There is no such request.
        """
        return self._call(calls.get(request_id, with_job_chain=with_job_chain), deadline)

    def start(self, request_id: str, *, deadline: float | None = None) -> None:
        """Starts a PENDING request.

        Raises:
            NotFoundError: There is no such request.
            FailedPreconditionError: It is not PENDING.
            UnavailableError: No Job Runner is alive, or the server cannot be reached.
        """
        self._call(calls.start(request_id), deadline)

    def stop(self, request_id: str, *, deadline: float | None = None) -> None:
        """Stops a request. Its jobs may take some seconds to end: `wait` waits for them.

        Raises:
            NotFoundError: There is no such request.
            FailedPreconditionError: It has failed.
        """
        self._call(calls.stop(request_id), deadline)

    def job_chain(self, request_id: str, *, deadline: float | None = None) -> JobChain:
        """Returns the job chain of a request as created: states stay PENDING.

        Raises:
            NotFoundError: There is no such request.
        """
        return self._call(calls.job_chain(request_id), deadline)

    def log(self, request_id: str, *, deadline: float | None = None) -> list[JobLog]:
        """Returns the finished tries of a request's jobs, by job id and try; none for an unknown request."""
        return self._call(calls.log(request_id), deadline)

    def job_log(self, request_id: str, job_id: str, *, deadline: float | None = None) -> JobLog:
        """Returns the newest finished try of a job.

        Raises:
            NotFoundError: There is no such request or job, or the job has not finished a try.
        """
        return self._call(calls.job_log(request_id, job_id), deadline)

    def request_list(self, *, deadline: float | None = None) -> list[RequestSpec]:
        """Returns the types of requests by name, with their required and then their optional args."""
        return self._call(calls.request_list(), deadline)

    def running(self, request_id: str = "", *, deadline: float | None = None) -> RunningStatus:
        """Returns the running jobs, of one request or of all, oldest first, and their requests."""
        return self._call(calls.running(request_id), deadline)

    def version(self, *, deadline: float | None = None) -> str:
        """Returns the version of the server's API, as "1.0.12"."""
        return self._call(calls.version(), deadline)

    def wait(
        self,
        request_id: str,
        deadline: float | None = None,
        on_change: Callable[[Request], None] | None = None,
    ) -> Request:
        """Waits until a request is COMPLETE, FAIL or STOPPED.

        An exception of `on_change`, Ctrl-C, or `close` in another thread ends the wait; the request
        goes on.

        Args:
            request_id: The request.
            deadline: Seconds to wait; None: however long it takes.
            on_change: Is called with the request at first, and when its state or the number of its
                finished jobs is another.

        Returns:
            The request, without its job chain.

        Raises:
            NotFoundError: There is no such request.
            DeadlineExceededError: It has not ended in time. Reason: WAITED_TOO_LONG.
            UnavailableError: The server was away for as long as a call may take.
            CallCancelledError: The client was closed.
        """
        changes = Changes(on_change)
        for request in self.watch(request_id, deadline):
            changes.see(request)
        return request

    def watch(self, request_id: str, deadline: float | None = None) -> Iterator[Request]:
        """Yields a request, without its job chain, again and again, changed or not, until it has ended.

        There is half a second at most between two looks. The last one shows how the request ended.

        Raises:
            SpinCycleError: As `wait`.
        """
        waiting = Wait(request_id, deadline)
        look = calls.get(request_id, with_job_chain=False)
        while True:
            with waiting.look(self._deadline) as seconds:
                request = self._call(look, seconds, max_tries=math.inf)
            yield request
            if is_final(request):
                return
            self._sleep(waiting.next_pause())

    def _call(
        self, call: calls.Call[_Answer], deadline: float | None, *, max_tries: float | None = None
    ) -> _Answer:
        tries = Tries(
            self._deadline if deadline is None else checked_deadline(deadline),
            call.max_tries if max_tries is None else max_tries,
        )
        method = getattr(self._stub, call.method)
        while True:
            self._check_open()
            try:
                return call.read(method(call.request, timeout=tries.begin()))
            except grpc.RpcError as error:
                wait = tries.wait_after(error)
                if wait is None:
                    self._check_open()
                    raise error_from_rpc(error, self._address) from error
            except ValueError:  # What gRPC raises for a channel that was closed.
                self._check_open()
                raise
            self._sleep(wait)

    def _sleep(self, seconds: float) -> None:
        self._closed.wait(seconds)
        self._check_open()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise CallCancelledError("the client is closed: make a new one", reason="CLIENT_CLOSED")
