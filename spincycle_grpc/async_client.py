"""The client of a Request Manager for asyncio."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar

import grpc
import grpc.aio

from spincycle_grpc import calls
from spincycle_grpc.channels import open_async_channel
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


class AsyncClient:
    """Calls a Request Manager from one event loop, that of its first call.

    What `Client` says of deadlines, errors and tries holds here too. Every call and wait can be
    cancelled as any coroutine can.

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
        channel: grpc.aio.Channel | None = None,
    ) -> None:
        self._deadline = checked_deadline(deadline)
        self._address = address
        self._credentials = credentials
        self._channel = channel
        self._owns_channel = channel is None
        self._stub: RequestManagerStub | None = None
        self._is_closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the client: calls and waits of other tasks raise CallCancelledError, as do later ones."""
        self._is_closed = True
        if self._owns_channel and self._channel is not None:
            await self._channel.close()

    async def create(
        self,
        type: str,  # noqa: A002 (what the contract calls it)
        args: Mapping[str, object] | None = None,
        *,
        idempotency_key: str | None = None,
        deadline: float | None = None,
    ) -> Request:
        """Makes a request and starts it, as `Client.create`."""
        return await self._call(calls.create(type, args, idempotency_key), deadline)

    async def plan(
        self,
        type: str,  # noqa: A002
        args: Mapping[str, object] | None = None,
        *,
        deadline: float | None = None,
    ) -> Request:
        """Returns what `create` would make, as `Client.plan`."""
        return await self._call(calls.plan(type, args), deadline)

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
        """Finds requests, newest first, as `Client.find`."""
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
        return await self._call(found, deadline)

    async def get(
        self, request_id: str, *, with_job_chain: bool = True, deadline: float | None = None
    ) -> Request:
        """Returns a request, as `Client.get`."""
        return await self._call(calls.get(request_id, with_job_chain=with_job_chain), deadline)

    async def start(self, request_id: str, *, deadline: float | None = None) -> None:
        """Starts a PENDING request, as `Client.start`."""
        await self._call(calls.start(request_id), deadline)

    async def stop(self, request_id: str, *, deadline: float | None = None) -> None:
        """Stops a request, as `Client.stop`."""
        await self._call(calls.stop(request_id), deadline)

    async def job_chain(self, request_id: str, *, deadline: float | None = None) -> JobChain:
        """Returns the job chain of a request as created, as `Client.job_chain`."""
        return await self._call(calls.job_chain(request_id), deadline)

    async def log(self, request_id: str, *, deadline: float | None = None) -> list[JobLog]:
        """Returns the finished tries of a request's jobs, as `Client.log`."""
        return await self._call(calls.log(request_id), deadline)

    async def job_log(self, request_id: str, job_id: str, *, deadline: float | None = None) -> JobLog:
        """Returns the newest finished try of a job, as `Client.job_log`."""
        return await self._call(calls.job_log(request_id, job_id), deadline)

    async def request_list(self, *, deadline: float | None = None) -> list[RequestSpec]:
        """Returns the types of requests, as `Client.request_list`."""
        return await self._call(calls.request_list(), deadline)

    async def running(self, request_id: str = "", *, deadline: float | None = None) -> RunningStatus:
        """Returns the running jobs and their requests, as `Client.running`."""
        return await self._call(calls.running(request_id), deadline)

    async def version(self, *, deadline: float | None = None) -> str:
        """Returns the version of the server's API, as `Client.version`."""
        return await self._call(calls.version(), deadline)

    async def wait(
        self,
        request_id: str,
        deadline: float | None = None,
        on_change: Callable[[Request], None] | None = None,
    ) -> Request:
        """Waits until a request is COMPLETE, FAIL or STOPPED, as `Client.wait`."""
        changes = Changes(on_change)
        async for request in self.watch(request_id, deadline):
            changes.see(request)
        return request

    async def watch(self, request_id: str, deadline: float | None = None) -> AsyncIterator[Request]:
        """Yields a request, changed or not, until it has ended, as `Client.watch`."""
        waiting = Wait(request_id, deadline)
        look = calls.get(request_id, with_job_chain=False)
        while True:
            with waiting.look(self._deadline) as seconds:
                request = await self._call(look, seconds, max_tries=math.inf)
            yield request
            if is_final(request):
                return
            await asyncio.sleep(waiting.next_pause())

    async def _call(
        self, call: calls.Call[_Answer], deadline: float | None, *, max_tries: float | None = None
    ) -> _Answer:
        tries = Tries(
            self._deadline if deadline is None else checked_deadline(deadline),
            call.max_tries if max_tries is None else max_tries,
        )
        while True:
            self._check_open()
            method = getattr(self._opened_stub(), call.method)
            try:
                return call.read(await method(call.request, timeout=tries.begin()))
            except grpc.RpcError as error:
                wait = tries.wait_after(error)
                if wait is None:
                    self._check_open()
                    raise error_from_rpc(error, self._address) from error
            except asyncio.CancelledError:
                # Closing a channel cancels its calls, but not the task that awaits one.
                task = asyncio.current_task()
                if task is None or not task.cancelling():
                    self._check_open()
                raise
            await asyncio.sleep(wait)

    def _opened_stub(self) -> RequestManagerStub:
        """Returns the stub. It is made late, since a channel belongs to the loop that it is made in."""
        if self._stub is None:
            if self._channel is None:
                self._channel = open_async_channel(self._address, self._credentials)
            self._stub = RequestManagerStub(self._channel)
        return self._stub

    def _check_open(self) -> None:
        if self._is_closed:
            raise CallCancelledError("the client is closed: make a new one", reason="CLIENT_CLOSED")
