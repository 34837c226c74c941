"""The stream on which one Job Runner reports to this Request Manager."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import structlog
from google.protobuf.duration_pb2 import Duration

from spincycle_grpc.errors import FailedPreconditionError, InternalError, InvalidArgumentError
from spincycle_grpc.trace_context import TraceContext
from spincycle_grpc.v1.runner_reports_pb2 import (
    REFUSAL_REASON_INVALID,
    Assignment,
    ChainReport,
    RefusedReport,
    ReportRequest,
    ReportResponse,
    RunnerInfo,
)
from spincycle_server.capabilities import KNOWS_ALL, Capabilities, known_version, labels_of
from spincycle_server.request_manager.freed_places import FreedPlaces, divide
from spincycle_server.request_manager.recovery import MissingChains
from spincycle_server.request_manager.runner_info import check_known_types, check_runner_info
from spincycle_server.store.approval_rows import WaitKey, keys_of
from spincycle_server.store.sequence_claim_rows import SequenceWait
from spincycle_server.telemetry.spans_of_requests import EPOCH

if TYPE_CHECKING:
    from spincycle_server.request_manager.dispatcher import Dispatcher
    from spincycle_server.request_manager.request_pauser import RequestPauser
    from spincycle_server.request_manager.request_stopper import RequestStopper
    from spincycle_server.request_manager.runners import Runners
    from spincycle_server.store import Store
    from spincycle_server.telemetry.spans_of_requests import RequestSpans

logger = structlog.get_logger(__name__)

MAX_HELD = 100_000
"""The maximum number of job chains that a runner may hold, and so may list in a message."""

ADDRESS_TIMEOUT = 2.0
"""Seconds in which a runner must answer at its address, so that it replaces an earlier one there.

With a short lease it is a quarter of the lease, so that the runner still gets its acknowledgement in time.
"""


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
        pauser: Tells the runner which of its chains are paused.
        lease: Seconds that a renewed lease lasts.
        spans: Records spans of requests; None to record none.
    """

    def __init__(
        self,
        store: Store,
        runners: Runners,
        dispatcher: Dispatcher,
        stopper: RequestStopper,
        pauser: RequestPauser,
        *,
        lease: float,
        spans: RequestSpans | None = None,
    ) -> None:
        self._store = store
        self._runners = runners
        self._dispatcher = dispatcher
        self._stopper = stopper
        self._pauser = pauser
        self._lease = lease
        self._spans = spans
        self._runner: RunnerInfo | None = None
        self._token = 0
        self._renewed_at = 0.0
        self._capabilities = KNOWS_ALL
        self._known_version: str | None = None
        self._asked_version = ""
        self._missing = MissingChains(patience=lease / 2)
        self._freed = FreedPlaces(0, 0)

    @property
    def runner_id(self) -> str:
        """The id of the runner; "" until it has identified itself."""
        return self._runner.runner_id if self._runner is not None else ""

    async def receive(self, message: ReportRequest) -> ReportResponse:
        """Commits a message's reports. Returns its acknowledgement, with the time that is left of the lease.

        Raises:
            InvalidArgumentError: The first message does not identify the runner, or a message lists too
                many chains. Reasons: RUNNER_UNKNOWN, BAD_ADDRESS, BAD_LABELS, BAD_FEATURES, BAD_JOB_TYPES,
                TOO_MANY_CHAINS.
            FailedPreconditionError: The runner reports on a newer stream (STREAM_SUPERSEDED), or its address
                cannot be used (ADDRESS_CHANGED, ADDRESS_TAKEN, NEEDS_TLS).
        """
        if len(message.held) > MAX_HELD:
            raise InvalidArgumentError(
                f"the message lists {len(message.held)} job chains: a runner may hold at most {MAX_HELD}",
                reason="TOO_MANY_CHAINS",
            )
        runner = self._identify(message)
        replaced = await self._replaced_by(runner) if message.HasField("runner") else ()
        has_changed = self._learn_capabilities(runner, message)
        received_at = time.monotonic()
        if has_changed or self._must_renew(message, received_at):
            await self._renew(runner, message, received_at, has_changed=has_changed)
        for runner_id in replaced:
            await self._remove(runner_id)
        started_at = 0 if self._spans is None else time.time_ns()
        refused = await self._store_reports(runner.runner_id, message.chains) if message.chains else []
        if self._spans is not None:
            self._record_commits(self._spans, message.chains, refused, started_at)
        if message.holds_all:
            await self._compare_held(runner, message.held)
        outcomes = await self._store.approvals.outcomes(_waits_in(message))
        limit_waits = _limit_waits_in(message)
        limit_outcomes = await self._store.limits.outcomes(limit_waits) if limit_waits else ()
        if message.leaving:
            await self._remove(runner.runner_id)
        left = self._lease - (received_at - self._renewed_at)
        response = ReportResponse(
            number=message.number,
            refused=refused,
            lease=_duration(left),
            approval_outcomes=outcomes,
            limit_outcomes=limit_outcomes,
        )
        self._ask_types(response)
        self._divide_places(runner.runner_id, message, response)
        return response

    def _divide_places(self, runner_id: str, message: ReportRequest, response: ReportResponse) -> None:
        """Keeps as many places of the chains that end in a message as requests here need."""
        ended = sum(chain.WhichOneof("end") is not None for chain in message.chains)
        self._runners.others_want(runner_id, message.wanted_places)
        needed = self._dispatcher.needed_places(runner_id) if ended else 0
        self._freed = divide(ended, needed, message.wanted_places)
        if ended:
            response.kept_places = self._freed.kept

    def acknowledged(self) -> None:
        """Counts the places of the last message. The runner knows now that the chains there have ended."""
        kept, spare = self._freed
        if kept + spare and self._runner is not None:
            self._dispatcher.add_places(self._runner.runner_id, kept + spare, spare=spare)

    def _identify(self, message: ReportRequest) -> RunnerInfo:
        if message.HasField("runner"):
            check_runner_info(message.runner)
            self._runners.check_may_call(message.runner)
            self._runner = message.runner
        if self._runner is None:
            raise InvalidArgumentError(
                "the first message of a runner's stream must identify the runner: set its field runner",
                reason="RUNNER_UNKNOWN",
            )
        return self._runner

    def _learn_capabilities(self, runner: RunnerInfo, message: ReportRequest) -> bool:
        """Keeps what the runner says about itself. Returns whether that may not be stored yet."""
        is_first, tells_types = message.HasField("runner"), message.HasField("known_job_types")
        if not (is_first or tells_types):
            return False
        types = self._capabilities.types
        if tells_types:
            check_known_types(message.known_job_types)
            types = frozenset(message.known_job_types.types)
            self._known_version = message.known_job_types.version
        before, self._capabilities = (
            self._capabilities,
            Capabilities(
                types, labels_of(runner.labels), frozenset(runner.features), known_version(runner.version)
            ),
        )
        return is_first or self._capabilities != before

    def _ask_types(self, response: ReportResponse) -> None:
        """Asks a runner that says which job types it knows about those that have changed."""
        asked = self._runners.asked_types.message
        if self._known_version is not None and asked.version not in (
            self._known_version,
            self._asked_version,
        ):
            response.asked_job_types.CopyFrom(asked)
            self._asked_version = asked.version

    async def _replaced_by(self, runner: RunnerInfo) -> Sequence[str]:
        """Returns the ids of earlier runners at the address of a runner, if it answers there.

        The answer proves that the others are gone. The message does not: it may be an old message of a dead
        runner that is read late, or come from somebody who is not at this address.

        Raises:
            FailedPreconditionError: A live runner may be at the address (ADDRESS_TAKEN), or the runner had
                another address (ADDRESS_CHANGED).
        """
        stored = await self._store.runners_like(runner)
        if any(
            one.runner.runner_id == runner.runner_id and one.runner.grpc_address != runner.grpc_address
            for one in stored
        ):
            raise FailedPreconditionError(
                f"job runner {runner.runner_id} has another address: it keeps its address while it runs",
                reason="ADDRESS_CHANGED",
            )
        others = [one for one in stored if one.runner.runner_id != runner.runner_id]
        if not others:
            return ()
        error = await self._runners.error_at_address(runner, min(ADDRESS_TIMEOUT, self._lease / 4))
        if error is None:
            return [one.runner.runner_id for one in others]
        if any(one.is_live for one in others):
            raise FailedPreconditionError(
                f"another job runner has the address {runner.grpc_address}, and this one does not answer "
                f"there: {error.message}",
                reason="ADDRESS_TAKEN",
            )
        return ()

    def _must_renew(self, message: ReportRequest, received_at: float) -> bool:
        return (
            message.HasField("runner")
            or message.draining
            or message.holds_all
            or received_at - self._renewed_at > self._lease / 5
        )

    async def _renew(
        self, runner: RunnerInfo, message: ReportRequest, received_at: float, *, has_changed: bool
    ) -> None:
        """Renews the lease. The token of the last renewal proves that no newer stream has renewed it."""
        token = None if message.HasField("runner") else self._token
        self._token = await self._store.renew_runner(
            runner,
            self._lease,
            draining=message.draining,
            token=token,
            capabilities=self._capabilities,
            has_changed=has_changed,
        )
        self._renewed_at = received_at
        is_new = self._runners.get(runner.runner_id) is None
        self._runners.add(runner, self._capabilities)
        was_draining = self._runners.is_draining(runner.runner_id)
        if message.draining:
            self._runners.drain(runner.runner_id)
            if not was_draining:
                self._dispatcher.tell_neighbours()
        if is_new:
            logger.info("runner reports", runner_id=runner.runner_id, url=runner.url)
        if is_new or has_changed:
            self._dispatcher.runners_changed()

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

    def _record_commits(
        self,
        spans: RequestSpans,
        reports: Sequence[ChainReport],
        refused: Sequence[RefusedReport],
        started_at: int,
    ) -> None:
        """Records the commit for each request of a trace whose report was stored."""
        traced = [report for report in reports if report.assignment.traceparent]
        without = {one.assignment.request_id for one in refused} if traced else set()
        for report in traced:
            assignment = report.assignment
            if assignment.request_id not in without:
                trace = TraceContext.parse(assignment.traceparent)
                attributes = {EPOCH: assignment.epoch, "spincycle.tries": len(report.tries)}
                spans.within("commit", assignment.request_id, trace, started_at, attributes)

    async def _compare_held(self, runner: RunnerInfo, held: Iterable[Assignment]) -> None:
        """Compares the chains that the runner has with the chains that are assigned to it.

        Chains that it should have and does not have are taken over. Chains that it has and that must stop are
        stopped: the Request Manager that committed the stop may have died before it told the runner. The same
        holds for pauses and their ends.
        """
        assigned = await self._store.assigned_to(runner.runner_id)
        held_pairs = {(one.request_id, one.epoch): one.pausing for one in held}
        for request_id, one in assigned.items():
            is_pausing = held_pairs.get((request_id, one.epoch))
            if is_pausing is None:
                continue
            if one.stop_requested:
                self._stopper.tell_runner(runner, request_id, skip_finally=one.skip_finally)
            else:
                self._pauser.compare(runner, request_id, one, is_pausing=is_pausing)
        epochs = {request_id: one.epoch for request_id, one in assigned.items()}
        for request_id, epoch in self._missing.update(epochs, held_pairs.keys()):
            logger.warning(
                "runner does not have a request", runner_id=runner.runner_id, request_id=request_id
            )
            lost = Assignment(request_id=request_id, epoch=epoch)
            self._dispatcher.recover_soon(lost, self._token)

    async def _remove(self, runner_id: str) -> None:
        await self._store.remove_runner(runner_id)
        self._runners.remove(runner_id)
        logger.info("runner left", runner_id=runner_id)
        self._dispatcher.runners_changed()


def _waits_in(message: ReportRequest) -> dict[WaitKey, Assignment]:
    """Returns the waits for approvals that a message opens or lists, each with its assignment."""
    waits = keys_of(message.held)
    for report in message.chains:
        for opened in report.opened:
            key = WaitKey(report.assignment.request_id, opened.job_id, getattr(opened, "try"))
            waits[key] = report.assignment
    return waits


def _limit_waits_in(message: ReportRequest) -> dict[SequenceWait, Assignment]:
    """Returns the waits for keys of limits that a message begins or lists, each with its assignment."""
    waits = {
        SequenceWait(one.request_id, wait.sequence_id, wait.number): one
        for one in message.held
        for wait in one.limit_waits
    }
    for report in message.chains:
        one = report.assignment
        for change in report.limit_changes:
            if change.limits:
                waits[SequenceWait(one.request_id, change.sequence_id, change.number)] = one
    return waits


def _duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
