"""The tries of a suspect: a chain whose earlier runner died, perhaps because of one of its jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spincycle_grpc.v1.job_runner_pb2 import Suspect
    from spincycle_server.chain import Run, RunningChain
    from spincycle_server.job_runner.chain_reports import ChainReports
    from spincycle_server.job_runner.job_try import JobTry
    from spincycle_server.job_runner.suspect_turns import SuspectTurns, Turn
    from spincycle_server.job_runner.try_result import TryResult

MAX_CRASHES = 3
"""The default of `job_runner.max_crashes`."""

TURN = 5.0
"""The default of `job_runner.suspect_turn`, in seconds."""


@dataclass(frozen=True, slots=True)
class SuspectRules:
    """How a runner treats suspects.

    Attributes:
        turns: The turns, which all chains of the runner share.
        max_crashes: A request fails after this many crashes in a row.
    """

    turns: SuspectTurns
    max_crashes: int = MAX_CRASHES


class SuspectTries:
    """The tries with which a chain continues after its runner died. A chain that is no suspect has none.

    Such a try may have killed the runner. So it waits for its turn, and starts after a Request Manager has
    recorded it. A try without effects cannot kill the runner, and is recorded later than the tries after it
    may start. So the tries after such tries may have killed the runner too.

    Args:
        suspect: What the Request Manager says of the chain; None if it is no suspect.
        rules: The runner's turns and limits.
        reports: The reports of the chain.
        has_effect: Returns whether a try has an effect.

    Attributes:
        suspect: What the Request Manager says of a chain that is a suspect; None for other chains.
    """

    def __init__(
        self,
        suspect: Suspect | None,
        rules: SuspectRules,
        reports: ChainReports,
        has_effect: Callable[[Run], bool],
    ) -> None:
        self.suspect = suspect
        self._rules = rules
        self._reports = reports
        self._has_effect = has_effect
        self._left: set[Run] = set()
        self._without_effect: set[Run] = set()
        self._waiting: set[Run] = set()

    def begin(self, runs: Iterable[Run]) -> None:
        """Sets the tries with which the chain continues."""
        if self.suspect is not None:
            self._add(runs)
            self._clear_if_none_left()

    def continued(self, ended: Run, runs: Iterable[Run]) -> None:
        """Adds the tries that follow a try without effect."""
        if ended in self._without_effect:
            self._without_effect.discard(ended)
            self._add(runs)
            self._clear_if_none_left()

    def given_up(self, chain: RunningChain) -> tuple[Run, str] | None:
        """Returns the try that must not start again, and the error for its log entry; None if there is none.

        Args:
            chain: The chain, not started.
        """
        if self.suspect is None or self.suspect.crashes < self._rules.max_crashes:
            return None
        run = chain.next_try(self.suspect.job_id)
        if run is None:
            return None
        return run, (
            f"the job runner died {self.suspect.crashes} times in a row while this job ran, so it is not "
            "started again (job_runner.max_crashes): look for what ends the process, for example memory, a "
            "crash in a library, or a call of exit"
        )

    def waits(self, run: Run) -> bool:
        """Returns whether a try waits for its turn."""
        return run in self._waiting

    def covers(self, run: Run) -> bool:
        """Returns whether a try must wait for its turn."""
        return run in self._left

    def forget(self) -> None:
        """Reports nothing more, because the chain was dropped."""
        self.suspect = None

    async def result(
        self, job_try: JobTry, on_recorded: Callable[[asyncio.Future[None]], object]
    ) -> TryResult:
        """Runs a try in its turn, unless it is told to stop before.

        Args:
            job_try: The try.
            on_recorded: Is called with the result when a Request Manager has recorded the try.
        """
        turn: Turn | None = None
        self._waiting.add(job_try.run)
        try:
            turn = await self._take_turn(job_try)
            if turn is not None:
                recorded = self._reports.started(job_try.run, is_shared=turn.is_shared)
                recorded.add_done_callback(on_recorded)
                await _wait_unless_stopped(recorded, job_try)
            self._waiting.discard(job_try.run)
            return await job_try.result()
        finally:
            self._ended(job_try.run, turn)

    def _ended(self, run: Run, turn: Turn | None) -> None:
        self._waiting.discard(run)
        self._left.discard(run)
        if turn is not None:
            turn.end()
        self._clear_if_none_left()

    def _add(self, runs: Iterable[Run]) -> None:
        for run in runs:
            (self._left if self._has_effect(run) else self._without_effect).add(run)

    def _clear_if_none_left(self) -> None:
        if not self._left and not self._without_effect and self.suspect is not None:
            self.suspect = None
            self._reports.clear()

    async def _take_turn(self, job_try: JobTry) -> Turn | None:
        """Returns the turn of a try; None if it is told to stop first."""
        is_alone = self.suspect is not None and self.suspect.alone
        taking = asyncio.ensure_future(self._rules.turns.take(is_alone=is_alone))
        try:
            await _wait_unless_stopped(taking, job_try)
            return taking.result() if taking.done() else None
        finally:
            taking.cancel()


async def _wait_unless_stopped(future: asyncio.Future[Any], job_try: JobTry) -> None:
    """Returns when a future is done, or a try has been told to stop."""
    stopped = asyncio.ensure_future(job_try.wait_for_stop())
    try:
        await asyncio.wait({future, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
