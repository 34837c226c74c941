"""Runs `spincycle` until it reaches a named point, where SIGKILL ends it.

Usage: python -m tests.e2e.dying_server POINT ARGUMENTS...

The server has no hooks for this. Before the server starts, the method at the point is patched.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from spincycle_grpc.state import State
from spincycle_grpc.v1.job_pb2 import SuspendedJobChain
from spincycle_grpc.v1.job_runner_pb2 import AssignedJobChain
from spincycle_grpc.v1.runner_reports_pb2 import RunnerInfo
from spincycle_server.__main__ import main
from spincycle_server.job_runner.outbox import Outbox
from spincycle_server.job_runner.reporter import Reporter
from spincycle_server.job_runner.service import JobRunnerService
from spincycle_server.job_runner.traverser import Traverser
from spincycle_server.request_manager.delivery import Delivery
from spincycle_server.request_manager.runner_reports_service import RunnerReportsService
from spincycle_server.request_manager.runners import Runners
from spincycle_server.request_manager.service import RequestManagerService
from spincycle_server.store.batches import BatchCommitter
from spincycle_server.store.chain_reports import ApplyReports
from spincycle_server.store.creation import CreateRequest
from spincycle_server.store.delivery_queue import DeliveryQueue
from spincycle_server.store.group_commit import GroupCommitWriter
from spincycle_server.store.leases import RenewRunner
from spincycle_server.store.pauses import BeginPause, EndPause
from spincycle_server.store.retries import CreateRetry
from spincycle_server.store.states import Assign, RequestStop, StopUnassigned, Unassign
from spincycle_server.store.store import Store
from spincycle_server.store.suspended_chains import DropSuspended
from spincycle_server.store.write import Write
from tests.limits import STEP

Install = Callable[[], None]
Test = Callable[[Any], bool]


def die() -> None:
    """Ends this process like a power failure."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(STEP)  # This thread must not continue while the kernel ends the others.


def _always(_: Any) -> bool:
    return True


def after(owner: type, name: str, test: Callable[..., bool] = lambda *_: True) -> Install:
    """Dies when a coroutine method has finished, before its caller gets the result."""

    def install() -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        async def patched(self: Any, *arguments: Any, **named: Any) -> Any:
            result = await original(self, *arguments, **named)
            if test(*arguments):
                die()
            return result

        setattr(owner, name, patched)

    return install


def before(owner: type, name: str, test: Callable[..., bool] = lambda *_: True) -> Install:
    """Dies when a method is called, before it runs."""

    def install() -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def patched(self: Any, *arguments: Any, **named: Any) -> Any:
            if test(*arguments):
                die()
            return original(self, *arguments, **named)

        setattr(owner, name, patched)

    return install


def _around_commit(method: str, kind: type[Write], test: Test, at_least: int, number: int) -> Install:
    def install() -> None:
        original = getattr(BatchCommitter, method)
        make_writer: Any = GroupCommitWriter.__init__
        writers: dict[BatchCommitter, GroupCommitWriter] = {}
        seen = 0

        def made(self: GroupCommitWriter, *arguments: Any, **named: Any) -> None:
            make_writer(self, *arguments, **named)
            writers[self.batches] = self

        def patched(self: Any, *arguments: Any) -> Any:
            nonlocal seen
            result = original(self, *arguments)
            writes = arguments[-1]
            wanted = sum(isinstance(write, kind) and test(write) for write in writes)
            if wanted >= at_least:
                seen += 1
                if seen == number:
                    if method == "apply":
                        arguments[0].flush()  # Otherwise the statements would still be buffered.
                    die()
            elif wanted:
                _wait_for_others(writers[self], at_least)
            return result

        setattr(BatchCommitter, method, patched)
        GroupCommitWriter.__init__ = made  # type: ignore[method-assign]

    return install


def _wait_for_others(writer: GroupCommitWriter, count: int) -> None:
    """Waits until the queue has `count` writes, which the next transaction then contains together."""
    deadline = time.monotonic() + STEP
    while writer.waiting < count and time.monotonic() < deadline:
        time.sleep(0.005)


def committed(kind: type[Write], test: Test = _always, *, at_least: int = 1, number: int = 1) -> Install:
    """Dies when a transaction with matching writes is committed, before any caller gets its result."""
    return _around_commit("run", kind, test, at_least, number)


def uncommitted(kind: type[Write], test: Test = _always, *, at_least: int = 1) -> Install:
    """Dies when matching writes are executed but their transaction is not yet committed."""
    return _around_commit("apply", kind, test, at_least, 1)


def _has_tries(write: ApplyReports) -> bool:
    return any(tried.entry.type != "noop" for report in write.reports for tried in report.tries)


def _ends(how: str) -> Callable[[ApplyReports], bool]:
    return lambda write: any(report.WhichOneof("end") == how for report in write.reports)


def _assigned_from(state: State) -> Callable[[Assign], bool]:
    return lambda write: write.expected_state == state


def _is(kind: str) -> Callable[[RunnerInfo, bytes], bool]:
    return lambda _, assigned: AssignedJobChain.FromString(assigned).WhichOneof("chain") == kind


def _unacknowledged() -> None:
    """Dies when reports are committed, immediately before their acknowledgement is sent."""
    report, apply = RunnerReportsService.Report, Store.apply_reports
    is_next = False

    async def patched_apply(self: Store, runner_id: str, reports: Any) -> Any:
        nonlocal is_next
        refused = await apply(self, runner_id, reports)
        is_next = _has_tries(ApplyReports(runner_id, reports, {}))
        return refused

    async def patched_report(self: RunnerReportsService, requests: Any, context: Any) -> AsyncIterator[Any]:
        async for answer in report(self, requests, context):
            if is_next:
                die()
            yield answer

    Store.apply_reports = patched_apply  # type: ignore[method-assign]
    RunnerReportsService.Report = patched_report  # type: ignore[method-assign]


def _sent() -> None:
    """Dies when a report of a job is sent, before the acknowledgement arrives."""
    exchange = Reporter._exchange

    async def patched(self: Reporter, call: Any, message: Any) -> Any:
        if _has_tries(ApplyReports("", message.chains, {})):
            await call.write(message)
            die()
        return await exchange(self, call, message)

    Reporter._exchange = patched  # type: ignore[method-assign]


def _is_job(run: object, result: object, waiter: object) -> bool:
    return waiter is not None


def _settles_tries(batch: Any, refused: Any) -> bool:
    return any(waiter is not None for entry in batch.entries for _, waiter, _ in entry.tries)


def _settles_end(batch: Any, refused: Any) -> bool:
    return any(entry.end is not None for entry in batch.entries)


def _is_suspension(assignment: Any, end: Any, *_: Any) -> bool:
    return isinstance(end, SuspendedJobChain)


MANAGER_POINTS: dict[str, Install] = {
    "create is not committed": uncommitted(CreateRequest),
    "create is committed": committed(CreateRequest),
    "create is not answered": after(RequestManagerService, "Create"),
    "several creates are not committed": uncommitted(CreateRequest, at_least=2),
    "several creates are committed": committed(CreateRequest, at_least=2),
    "assigned, not sent": before(Delivery, "send"),
    "waiting request is assigned": committed(Assign, _assigned_from(State.PENDING)),
    "chain is sent": after(Runners, "start_job_chain", _is("job_chain")),
    "report is not committed": uncommitted(ApplyReports, _has_tries),
    "report is committed": committed(ApplyReports, _has_tries),
    "report is not acknowledged": _unacknowledged,
    "finish is not committed": uncommitted(ApplyReports, _ends("finish")),
    "finish is committed": committed(ApplyReports, _ends("finish")),
    "suspension is not committed": uncommitted(ApplyReports, _ends("suspended")),
    "suspension is committed": committed(ApplyReports, _ends("suspended")),
    "resume is assigned": committed(Assign, _assigned_from(State.SUSPENDED)),
    "resume is sent": after(Runners, "start_job_chain", _is("suspended_job_chain")),
    "resumed chain is dropped": committed(DropSuspended),
    "unassign is committed": committed(Unassign),
    "stop is recorded": committed(RequestStop),
    "stop is delivered": after(Runners, "stop_job_chain"),
    "stop of a waiting request is committed": committed(StopUnassigned),
    "lease is renewed": committed(RenewRunner, number=3),
    "takeover is not committed": uncommitted(Assign, _assigned_from(State.RUNNING)),
    "takeover is committed": committed(Assign, _assigned_from(State.RUNNING)),
    "takeover is not sent": before(Delivery, "send_suspended"),
}

OPERATOR_POINTS: dict[str, Install] = {
    "pause is not committed": uncommitted(BeginPause),
    "pause is committed": committed(BeginPause),
    "end of a pause is committed": committed(EndPause),
    "paused request is taken over": before(Store, "suspend"),
    "retry is not committed": uncommitted(CreateRetry),
    "retry is committed": committed(CreateRetry),
    "notification is not claimed": before(DeliveryQueue, "claim"),
    "notification is claimed": after(DeliveryQueue, "claim"),
}
"""Points of a Request Manager that only a paused or a retried request, or one with targets, reaches."""

RUNNER_POINTS: dict[str, Install] = {
    "chain is accepted": after(JobRunnerService, "StartJobChains"),
    "assignment stands": before(Traverser, "_claim_answered"),
    "try has ended": before(Traverser, "_report", _is_job),
    "report is on its way": _sent,
    "acknowledgement is read": before(Outbox, "settle", _settles_tries),
    "end is acknowledged": before(Outbox, "settle", _settles_end),
    "suspension is requested": before(Traverser, "suspend"),
    "chain is suspended": before(Outbox, "add_end", _is_suspension),
    "all are suspended": before(Reporter, "leave"),
}

if __name__ == "__main__":
    point = sys.argv.pop(1)
    {**MANAGER_POINTS, **OPERATOR_POINTS, **RUNNER_POINTS}[point]()
    main()
