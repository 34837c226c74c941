"""The stream to a Request Manager: it carries the reports of all chains and renews the runner's lease.

Reports that are queued while a message is in flight go out together in the next message. A report
stays in the outbox until a Request Manager confirms that it is committed. When a stream breaks, its
unconfirmed reports are sent again on the next stream, to the same Request Manager or to another. That
is safe because reports are idempotent.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import structlog

from spincycle_grpc.backoff import Backoff
from spincycle_grpc.channels import open_async_channel
from spincycle_grpc.rpc_errors import explained_async_error
from spincycle_grpc.tls_errors import ClientTls
from spincycle_grpc.v1.runner_reports_pb2 import (
    Assignment,
    KnownJobTypes,
    ReportRequest,
    ReportResponse,
    RunnerInfo,
)
from spincycle_grpc.v1.runner_reports_pb2_grpc import RunnerReportsStub
from spincycle_server.telemetry.reports import ReportMetrics

if TYPE_CHECKING:
    from typing import TypeAlias

    from spincycle_grpc.v1.approval_pb2 import ApprovalOutcome
    from spincycle_grpc.v1.limit_pb2 import SequenceLimitOutcome
    from spincycle_server.job_runner.capacity_streams import CapacityStreams
    from spincycle_server.job_runner.known_types import KnownTypes
    from spincycle_server.job_runner.outbox import Outbox

    _ReportCall: TypeAlias = grpc.aio.StreamStreamCall[ReportRequest, ReportResponse]

logger = structlog.get_logger(__name__)

ANSWER_TIMEOUT = 10.0
"""Seconds that a Request Manager has to acknowledge a message before the runner tries another one.

With a short lease it is half of the lease, so that another one can be reached before the lease expires.
"""

REFUSAL_TIMEOUT = 1.0
"""Seconds in which a Request Manager must refuse a new stream again, so that the log can say why."""

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


class Reporter:
    """Sends the reports in the outbox until it is cancelled.

    Args:
        runner: The runner's id and addresses.
        addresses: The gRPC addresses of Request Managers, tried in turn.
        outbox: The queue of reports.
        held: Returns the assignments of all chains that the runner holds.
        lease: Seconds that a lease is assumed to last until a Request Manager sends the actual time.
        credentials: Returns the newest credentials for TLS to the Request Managers; None for plaintext. When
            they change, the runner opens a new stream.
        call_metadata: Returns the metadata that identifies this server to the Request Managers.
        on_lapse: Called when an expired lease is renewed, before the rest of the answer is handled.
        known_types: The job types that the runner knows; None if it does not say.
        on_outcome: Called with the end of each wait for an approval that an answer has.
        capacity: Offers free places to other Request Managers; None if the runner offers none.
        on_limit_outcome: Called with the end of each wait for keys of limits that an answer has.

    Attributes:
        metrics: Counts messages and leases.
    """

    def __init__(
        self,
        runner: RunnerInfo,
        addresses: Sequence[str],
        outbox: Outbox,
        held: Callable[[], Iterable[Assignment]],
        *,
        lease: float,
        credentials: Callable[[], grpc.ChannelCredentials | None] = lambda: None,
        call_metadata: Callable[[], Sequence[tuple[str, str]]] = tuple,
        on_lapse: Callable[[], None] = lambda: None,
        known_types: KnownTypes | None = None,
        on_outcome: Callable[[ApprovalOutcome], None] = lambda _: None,
        capacity: CapacityStreams | None = None,
        on_limit_outcome: Callable[[SequenceLimitOutcome], None] = lambda _: None,
    ) -> None:
        self._runner = runner
        self._addresses = addresses
        self._outbox = outbox
        self._held = held
        self._lease = lease
        self._credentials = credentials
        self._call_metadata = call_metadata
        self._on_lapse = on_lapse
        self._known_types = known_types
        self._on_outcome = on_outcome
        self._capacity = capacity
        self._on_limit_outcome = on_limit_outcome
        if known_types is not None:
            known_types.on_change = outbox.nudge
        self._draining = False
        self._leaving = False
        self._left = asyncio.Event()
        self._lease_end: float | None = None
        self._told_held_at = 0.0
        self._connected = asyncio.Event()
        self.metrics = ReportMetrics()
        self._expired_end = 0.0

    @property
    def lease_left(self) -> float:
        """Seconds until the lease expires: 0 after that, infinity before the first lease."""
        if self._lease_end is None:
            return math.inf
        left = self._lease_end - time.monotonic()
        return left if left > 0.0 else 0.0  # Each job asks, and a call of max takes longer.

    @property
    def has_lease(self) -> bool:
        """Whether a Request Manager has acknowledged the runner within its lease."""
        return self._lease_end is not None and self.lease_left > 0

    def lease_expired(self) -> None:
        """Counts that the lease has expired, once for each lease."""
        if self._lease_end is not None and self._lease_end != self._expired_end:
            self._expired_end = self._lease_end
            self.metrics.lease_expired()

    async def wait_connected(self) -> None:
        """Returns when a Request Manager has acknowledged the runner, and its job types, on the stream."""
        await self._connected.wait()

    def drain(self) -> None:
        """Tells the Request Manager that this runner takes no more chains. Returns at once."""
        self._draining = True
        self._outbox.nudge()

    async def leave(self) -> None:
        """Tells the Request Manager that this runner is gone. Returns when it has acknowledged that.

        Returns at once if no Request Manager ever acknowledged this runner: none waits for it.
        """
        if self._lease_end is None:
            return
        self._leaving = True
        self._outbox.nudge()
        await self._left.wait()

    async def run(self) -> None:
        """Reports until it is cancelled. When a stream ends, continues with the next Request Manager."""
        turn = 0
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            address = self._addresses[turn % len(self._addresses)]
            started = time.monotonic()
            try:
                await self._report_to(address)
                logger.info("reconnecting with new certificates", request_manager=address)
                continue
            except grpc.aio.AioRpcError as error:
                client = ClientTls(self._credentials() is not None, "rm_client.tls")
                reason = str(await explained_async_error(error, address, client))
            except TimeoutError:
                reason = f"no answer in {self._answer_timeout:g} s"
            except ConnectionResetError as error:
                reason = str(error)
            self._connected.clear()
            self.metrics.interrupted()
            logger.warning("reporting interrupted", request_manager=address, error=reason)
            turn += 1
            if time.monotonic() - started > _LONGEST_PAUSE:
                backoff.reset()
            # A short lease must not expire while the runner pauses before it tries the next Request Manager.
            await asyncio.sleep(backoff.next(at_most=self._lease / 5))

    async def _report_to(self, address: str) -> None:
        """Reports over one stream. Returns when there are new credentials."""
        credentials = self._credentials()
        async with open_async_channel(address, credentials, uses_proxy=False) as channel:
            stub = RunnerReportsStub(channel)
            call = stub.Report(metadata=self._call_metadata())
            try:
                await self._converse(call, address, lambda: self._credentials() is credentials)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.INTERNAL:
                    raise
                # gRPC loses the status of a stream that the server ends while the client writes to it.
                reason = await _error_without_writing(stub.Report(metadata=self._call_metadata()))
                raise reason or error from None
            finally:
                call.cancel()

    async def _converse(self, call: _ReportCall, address: str, may_continue: Callable[[], bool]) -> None:
        """Sends one message after another. Each waits for the acknowledgement of the one before."""
        number = 0
        told_types: KnownJobTypes | None = None
        asked_version = ""
        is_connected = False
        while may_continue():
            batch = self._outbox.take()
            number += 1
            leaving = self._leaving and not batch.entries
            message = batch.message()
            message.number = number
            message.draining = self._draining
            message.leaving = leaving
            if number == 1:
                message.runner.CopyFrom(self._runner)
            if self._capacity is not None:
                message.wanted_places = self._capacity.wanted
            told_types = self._tell_types(message, told_types)
            if number == 1 or time.monotonic() - self._told_held_at > self._lease / 4:
                message.held.extend(self._held())
                message.holds_all = True
                self._told_held_at = time.monotonic()
            try:
                answer = await self._exchange(call, message)
            except BaseException:
                self._outbox.put_back(batch)
                raise
            self._outbox.settle(batch, answer.refused)
            if self._capacity is not None:
                # Before the ended chains leave: their places must not be offered to others first.
                self._capacity.keep(answer.kept_places if answer.HasField("kept_places") else batch.ends)
            for outcome in answer.approval_outcomes:
                self._on_outcome(outcome)
            for limit_outcome in answer.limit_outcomes:
                self._on_limit_outcome(limit_outcome)
            if self._known_types is not None and answer.HasField("asked_job_types"):
                asked_version = answer.asked_job_types.version
                self._known_types.ask(answer.asked_job_types)
            if leaving:
                self._left.set()
            # A Request Manager assigns nothing before it knows the runner's job types.
            told_all = told_types is None or asked_version in ("", told_types.version)
            if told_all and not is_connected:
                is_connected = True
                logger.info("reporting", request_manager=address, runner_id=self._runner.runner_id)
                self._connected.set()
            await self._something_to_say()

    def _tell_types(self, message: ReportRequest, told: KnownJobTypes | None) -> KnownJobTypes | None:
        """Adds the job types that the runner knows, unless this stream was told. Returns what it was told."""
        known = None if self._known_types is None else self._known_types.message
        if known is not None and known is not told:
            message.known_job_types.CopyFrom(known)
        return known

    @property
    def _answer_timeout(self) -> float:
        return min(ANSWER_TIMEOUT, self._lease / 2)

    async def _exchange(self, call: _ReportCall, message: ReportRequest) -> ReportResponse:
        sent_at = time.monotonic()
        async with asyncio.timeout(self._answer_timeout):
            try:
                await call.write(message)
            except asyncio.InvalidStateError:  # raised by grpc if the stream has ended since the last answer
                raise await _end_of(call) from None
            answer = await call.read()
            if not isinstance(answer, ReportResponse):
                raise await _end_of(call)
        if self.lease_left <= 0:
            logger.warning("lease had expired when it was renewed, chains are suspended")
            self.lease_expired()
            self._on_lapse()
        self.metrics.acknowledged(time.monotonic() - sent_at)
        self._lease = answer.lease.seconds + answer.lease.nanos / 1e9
        self._lease_end = sent_at + self._lease
        return answer

    async def _something_to_say(self) -> None:
        """Waits for a report, for a nudge, or until it is time to renew the lease."""
        renewal = asyncio.get_running_loop().call_later(self._lease / 4, self._outbox.nudge)
        try:
            await self._outbox.wait_filled()
        finally:
            renewal.cancel()


async def _error_without_writing(call: _ReportCall) -> Exception | None:
    """Returns the error with which a server ends a new stream before its first message; None without one."""
    try:
        async with asyncio.timeout(REFUSAL_TIMEOUT):
            return await _end_of(call)
    except TimeoutError:
        return None
    finally:
        call.cancel()


async def _end_of(call: _ReportCall) -> Exception:
    """Returns the error that ended a stream. A server that stops ends its streams without an error."""
    code = await call.code()
    if code is grpc.StatusCode.OK:
        return ConnectionResetError("the request manager closed the stream")
    return grpc.aio.AioRpcError(
        code, await call.initial_metadata(), await call.trailing_metadata(), details=await call.details()
    )
