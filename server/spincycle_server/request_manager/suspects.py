"""What a runner is told of a suspect: a request whose earlier runner died."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spincycle_grpc.errors import SpinCycleError, UnavailableError
from spincycle_grpc.v1.job_runner_pb2 import Suspect
from spincycle_grpc.v1.runner_reports_pb2 import RunnerInfo

if TYPE_CHECKING:
    from spincycle_server.request_manager.runners import Runners
    from spincycle_server.store import Store, StoredSuspect

ANSWER_TIMEOUT = 1.0
"""Seconds in which a runner that is not dead answers at its address."""


class Suspects:
    """Decides how many crashes of a suspect count.

    The newest crash counts only if its runner is certainly dead: its address refuses connections, or another
    runner answers there. A frozen runner does not answer, and may continue later. An earlier crash counts
    unless its runner has renewed its lease since, because the store takes it back then.

    Args:
        store: Knows the addresses of dead runners.
        runners: How runners are called.
    """

    def __init__(self, store: Store, runners: Runners) -> None:
        self._store = store
        self._runners = runners

    async def message(self, suspect: StoredSuspect) -> Suspect:
        """Returns what the next runner is told of a suspect."""
        crashes = len(suspect.crashed_runners)
        if crashes and not await self._is_dead(suspect.crashed_runners[-1]):
            crashes -= 1
        return Suspect(crashes=crashes, job_id=suspect.job_id, alone=suspect.is_alone)

    async def _is_dead(self, runner_id: str) -> bool:
        stored = await self._store.runners_like(RunnerInfo(runner_id=runner_id))
        known = next((one.runner for one in stored if one.runner.runner_id == runner_id), None)
        if known is None:  # Another runner at its address has replaced it.
            return True
        try:
            error = await self._runners.error_at_address(known, ANSWER_TIMEOUT)
        except SpinCycleError:  # It may not be called without TLS.
            return False
        return isinstance(error, UnavailableError) or (error is not None and error.reason == "OTHER_RUNNER")
