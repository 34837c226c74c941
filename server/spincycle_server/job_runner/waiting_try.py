"""A try that has not begun, because it waits for an approval or for keys of limits."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spincycle_grpc.state import State
from spincycle_server.job_runner.try_result import TryResult, try_report

if TYPE_CHECKING:
    from spincycle_server.chain import Run, RunningChain


@dataclass(slots=True)
class WaitingTry:
    """A try that waits.

    Attributes:
        run: The try.
        since: When this runner began to wait, in nanoseconds since the Unix epoch.
    """

    run: Run
    since: int

    def ended(self, chain: RunningChain, state: State, error: str, account: str = "") -> TryResult:
        """Returns the result of the try if its wait ends now. After FAIL, the job is not tried again.

        Args:
            chain: The chain of the try.
            state: How the try ends.
            error: Why it fails; "" if it does not.
            account: What the log shows as its output.
        """
        report = try_report(
            chain.jobs[self.run.job_id],
            chain.request_id,
            self.run.number,
            started_at=self.since,
            finished_at=max(time.time_ns(), self.since),
            state=state.value,
        )
        has_failed = state is State.FAIL
        report.entry.exit = int(has_failed)
        report.entry.error = error
        report.entry.stdout = account
        return TryResult(report, is_last=has_failed)
