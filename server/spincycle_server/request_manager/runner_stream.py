"""The stream on which one Job Runner reports to this Request Manager."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import structlog
from google.protobuf.duration_pb2 import Duration

from spincycle_grpc.errors import InternalError, InvalidArgumentError
from spincycle_grpc.v1.runner_reports_pb2 import (
    REFUSAL_REASON_INVALID,
    Assignment,
    ChainReport,
    RefusedReport,
    ReportRequest,
    ReportResponse,
    RunnerInfo,
)
from spincycle_server.request_manager.recovery import MissingChains
from spincycle_server.store.leases import Renewal

if TYPE_CHECKING:
    from spincycle_server.request_manager.dispatcher import Dispatcher
    from spincycle_server.request_manager.request_stopper import RequestStopper
    from spincycle_server.request_manager.runners import Runners
    from spincycle_server.store import Store

logger = structlog.get_logger(__name__)

MAX_HELD = 100_000
"""The maximum number of job chains that a runner may hold, and so may list in a message."""


class RunnerStream:
    """Handles the messages of one runner, one at a time and in order.

    Call `receive` for each message, send the response, and then call `acknowledged`.

    The first message, a message that lists all held chains, and a message that says "draining" renew the
    lease in the database. Other messages renew it only if a fifth of the lease has passed since the last
    renewal.

    Args:
        store: Stores leases and reports.
        runners: The live runners.
        dispatcher: Takes over the chains that the runner should have and does not have.
        stopper: Tells the runner to stop chains that it has and that must stop.
        lease: Seconds that a renewed lease lasts.
    """

    def __init__(
        self, store: Store, runners: Runners, dispatcher: Dispatcher, stopper: RequestStopper, *, lease: float
    ) -> None:
        self._store = store
        self._runners = runners
        self._dispatcher = dispatcher
        self._stopper = stopper
        self._lease = lease
        self._runner: RunnerInfo | None = None
        self._renewal = Renewal(0, ())
        self._renewed_at = 0.0
        self._missing = MissingChains(patience=lease / 2)

    async def receive(self, message: ReportRequest) -> ReportResponse:
        """Commits a message's reports. Returns its acknowledgement, with the time that is left of the lease.

        Raises:
            InvalidArgumentError: The first message does not identify the runner, or a message lists too
                many chains. Reasons: RUNNER_UNKNOWN, TOO_MANY_CHAINS.
            FailedPreconditionError: The runner reports on a newer stream. Reason: STREAM_SUPERSEDED.
        """
        if len(message.held) > MAX_HELD:
            raise InvalidArgumentError(
                f"the message lists {len(message.held)} job chains: a runner may hold at most {MAX_HELD}",
                reason="TOO_MANY_CHAINS",
            )
        runner = self._identify(message)
        received_at = time.monotonic()
        if not message.HasField("runner"):
            await self._remove_replaced_runners()
        if self._must_renew(message, received_at):
            await self._renew(runner, message, received_at)
        refused = await self._store_reports(runner.runner_id, message.chains) if message.chains else []
        if message.holds_all:
            await self._compare_held(runner, message.held)
        if message.leaving:
            await self._remove(runner.runner_id)
        left = self._lease - (received_at - self._renewed_at)
        return ReportResponse(number=message.number, refused=refused, lease=_duration(left))

    def acknowledged(self, message: ReportRequest) -> None:
        """Counts the chains that ended in a message. The runner knows now that it has room for others."""
        ended = sum(chain.WhichOneof("end") is not None for chain in message.chains)
        if ended and self._runner is not None:
            self._dispatcher.chains_ended(self._runner.runner_id, ended)

    def _identify(self, message: ReportRequest) -> RunnerInfo:
        if message.HasField("runner"):
            self._runner = _checked_runner(message.runner)
        if self._runner is None:
            raise InvalidArgumentError(
                "the first message of a runner's stream must identify the runner: set its field runner",
                reason="RUNNER_UNKNOWN",
            )
        return self._runner

    async def _remove_replaced_runners(self) -> None:
        """Ends the leases of other runners that have this runner's address.

        Only a second message proves that this runner is alive, and so that the others are gone. The first
        message can be an old message of a dead runner that is read late.
        """
        replaced = self._renewal.others
        if not replaced:
            return
        for runner_id in replaced:
            await self._remove(runner_id)
        self._renewal = Renewal(self._renewal.token, ())

    def _must_renew(self, message: ReportRequest, received_at: float) -> bool:
        return (
            message.HasField("runner")
            or message.draining
            or message.holds_all
            or received_at - self._renewed_at > self._lease / 5
        )

    async def _renew(self, runner: RunnerInfo, message: ReportRequest, received_at: float) -> None:
        """Renews the lease. The token of the last renewal proves that no newer stream has renewed it."""
        token = None if message.HasField("runner") else self._renewal.token
        self._renewal = await self._store.renew_runner(
            runner, self._lease, draining=message.draining, token=token
        )
        self._renewed_at = received_at
        is_new = self._runners.get(runner.runner_id) is None
        self._runners.add(runner)
        if message.draining:
            self._runners.drain(runner.runner_id)
        if is_new:
            logger.info("runner reports", runner_id=runner.runner_id, url=runner.url)
            self._dispatcher.wake()

    async def _store_reports(self, runner_id: str, reports: Sequence[ChainReport]) -> list[RefusedReport]:
        """Stores the reports of one message together.

        If the database refuses one of them, each is stored alone. Then only the invalid report is refused
        as INVALID, and its runner fails that chain.
        """
        try:
            return await self._store.apply_reports(runner_id, reports)
        except (InternalError, InvalidArgumentError) as error:
            if len(reports) == 1:
                assignment = reports[0].assignment
                logger.error("report cannot be stored", request_id=assignment.request_id, error=str(error))
                return [RefusedReport(assignment=assignment, reason=REFUSAL_REASON_INVALID)]
        return [refusal for report in reports for refusal in await self._store_reports(runner_id, [report])]

    async def _compare_held(self, runner: RunnerInfo, held: Iterable[Assignment]) -> None:
        """Compares the chains that the runner has with the chains that are assigned to it.

        Chains that it should have and does not have are taken over. Chains that it has and that must stop are
        stopped: the Request Manager that committed the stop may have died before it told the runner.
        """
        assigned = await self._store.assigned_to(runner.runner_id)
        held_pairs = {(one.request_id, one.epoch) for one in held}
        for request_id, one in assigned.items():
            if one.stop_requested and (request_id, one.epoch) in held_pairs:
                self._stopper.tell_runner(runner, request_id)
        epochs = {request_id: one.epoch for request_id, one in assigned.items()}
        for request_id, epoch in self._missing.update(epochs, held_pairs):
            logger.warning(
                "runner does not have a request", runner_id=runner.runner_id, request_id=request_id
            )
            lost = Assignment(request_id=request_id, epoch=epoch)
            self._dispatcher.recover_soon(lost, self._renewal.token)

    async def _remove(self, runner_id: str) -> None:
        await self._store.remove_runner(runner_id)
        self._runners.remove(runner_id)
        logger.info("runner left", runner_id=runner_id)
        self._dispatcher.wake()


def _checked_runner(runner: RunnerInfo) -> RunnerInfo:
    if not (runner.runner_id and runner.url and runner.grpc_address):
        raise InvalidArgumentError(
            "the field runner must have a runner_id, a url and a grpc_address", reason="RUNNER_UNKNOWN"
        )
    return runner


def _duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
