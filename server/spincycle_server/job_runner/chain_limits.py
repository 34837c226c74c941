"""The keys that sequences of a chain hold or wait for. A wait needs no thread: it is a row of the database.

The Request Managers store who holds a key and who waits, and tell the runner how each wait ends. A runner
that gets a chain asks for the keys of all sequences that need them. Those that had them, or a place among
those that wait, keep that. So no try begins before a Request Manager says that its sequences hold their keys.

A sequence asks for its keys when all sequences around it hold theirs, also in a retry that begins within it.
So all requests that use the same specs take keys in the same order.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from spincycle_grpc.state import State
from spincycle_grpc.v1.limit_pb2 import (
    WAIT_AFTER_STOP_ENDS,
    WAIT_AFTER_STOP_GOES_ON,
    SequenceLimitChange,
    SequenceLimitWait,
)
from spincycle_server.job_runner.waiting_try import WaitingTry

if TYPE_CHECKING:
    from spincycle_grpc.v1.limit_pb2 import SequenceLimitOutcome
    from spincycle_server.chain import Actions, Run, RunningChain
    from spincycle_server.job_runner.chain_reports import ChainReports
    from spincycle_server.job_runner.try_result import TryResult


class ChainLimits:
    """The keys of the sequences of one chain.

    Args:
        chain: The chain.
        reports: Its reports.
    """

    def __init__(self, chain: RunningChain, reports: ChainReports) -> None:
        self._chain = chain
        self._reports = reports
        self._numbers = 0
        self._reported: list[asyncio.Future[None]] = []
        self._held: set[str] = set()
        self._asked: dict[str, int] = {}
        self._postponed: dict[str, None] = {}  # They ask when the sequences around them hold their keys.
        self._deferred: dict[str, WaitingTry] = {}
        # The jobs of deferred tries by the sequences around them that they wait for.
        self._waiting_for: defaultdict[str, dict[str, None]] = defaultdict(dict)

    def take(self, actions: Actions) -> None:
        """Reports which sequences give up their keys, and which need theirs."""
        if not self._numbers:
            self._report(begins=True, kept=actions.claim)
        for sequence_id in actions.release:
            self._held.discard(sequence_id)
            self._asked.pop(sequence_id, None)
            self._postponed.pop(sequence_id, None)
            self._waiting_for.pop(sequence_id, None)
            self._report(sequence_id=sequence_id)
        self._postponed |= dict.fromkeys(actions.claim)
        self._ask_postponed()

    def reported(self) -> list[asyncio.Future[None]]:
        """Returns a future for each report since the last call, which is done when that is committed."""
        reported, self._reported = self._reported, []
        return reported

    def defers(self, run: Run) -> bool:
        """Keeps a try from beginning if a sequence around it does not hold its keys, and returns whether."""
        missing = [
            hold.sequence.id
            for hold in self._chain.keys_around(run.job_id)
            if hold.sequence.id not in self._held
        ]
        for sequence_id in missing:
            self._waiting_for[sequence_id][run.job_id] = None
            if sequence_id not in self._asked:  # Its last try was refused.
                self._postponed[sequence_id] = None
        self._ask_postponed()
        if missing:
            self._deferred[run.job_id] = WaitingTry(run, time.time_ns())
        return bool(missing)

    def granted(self, outcome: SequenceLimitOutcome) -> list[Run]:
        """Notes that a sequence holds its keys. Returns the tries that begin now."""
        if not self._ends(outcome):
            return []
        self._held.add(outcome.sequence_id)
        self._ask_postponed()
        waiting = self._waiting_for.pop(outcome.sequence_id, {})
        ready = [job_id for job_id in waiting if self._may_begin(self._deferred[job_id].run)]
        return [one.run for one in self._taken(ready)]

    def refused(
        self, outcome: SequenceLimitOutcome, waiting: Iterable[Run]
    ) -> tuple[list[Run], list[tuple[Run, TryResult]]]:
        """Notes that a sequence does not get its keys. The tries in it fail.

        Args:
            outcome: Why.
            waiting: Tries of the chain that have not been asked about yet.

        Returns:
            Those of `waiting` that are not in the sequence, and the tries in it with their results.
        """
        rest = list(waiting)
        if not self._ends(outcome):
            return rest, []
        now = time.time_ns()
        inside = self._taken(self._waiting_for.get(outcome.sequence_id, {}))
        inside += [WaitingTry(run, now) for run in rest if self._is_in(outcome.sequence_id, run)]
        rest = [run for run in rest if not self._is_in(outcome.sequence_id, run)]
        return rest, [(one.run, one.ended(self._chain, State.FAIL, outcome.error)) for one in inside]

    def unneeded(
        self, job_ids: Collection[str], waiting: Iterable[Run]
    ) -> tuple[list[Run], list[tuple[Run, TryResult]]]:
        """Ends tries that wait for keys, and that are not needed any more.

        Args:
            job_ids: The jobs.
            waiting: Tries of the chain that have not been asked about yet.

        Returns:
            Those of `waiting` that go on, and the ended tries with their results.
        """
        now = time.time_ns()
        rest: list[Run] = []
        ended = self._taken(job_ids)
        for run in waiting:
            if run.job_id in job_ids and not self._may_begin(run):
                ended.append(WaitingTry(run, now))
            else:
                rest.append(run)
        return rest, [(one.run, one.ended(self._chain, State.STOPPED, "")) for one in ended]

    def take_back(self, job_ids: Collection[str] | None = None) -> list[Run]:
        """Ends the waits of tries without an end of these. Returns the tries.

        Args:
            job_ids: Only of these jobs; None for all.
        """
        return [one.run for one in self._taken(self._deferred if job_ids is None else job_ids)]

    def keys_missing(self, run: Run) -> str:
        """Returns the keys that a try waits for, for people."""
        keys = [
            limit.key
            for hold in self._chain.keys_around(run.job_id)
            if hold.sequence.id not in self._held
            for limit in hold.limits
        ]
        return ", ".join(keys)

    def waiting_runs(self) -> Iterable[WaitingTry]:
        """Returns the tries that wait."""
        return self._deferred.values()

    def waits(self) -> list[SequenceLimitWait]:
        """Returns the sequences that wait for keys."""
        return [SequenceLimitWait(sequence_id=one, number=number) for one, number in self._asked.items()]

    def _ask_postponed(self) -> None:
        """Asks for the keys of sequences around which all others hold theirs."""
        for sequence_id in list(self._postponed):
            around = self._chain.keys_of(sequence_id).around
            if all(outer.sequence.id in self._held for outer in around):
                del self._postponed[sequence_id]
                self._ask(sequence_id)

    def _ask(self, sequence_id: str) -> None:
        hold = self._chain.keys_of(sequence_id)
        self._report(
            sequence_id=sequence_id,
            limits=hold.limits,
            around=[outer.sequence.id for outer in hold.around],
            path=self._chain.sequence_path_of(sequence_id),
            after_stop=WAIT_AFTER_STOP_GOES_ON if hold.outlasts_stop else WAIT_AFTER_STOP_ENDS,
        )
        self._asked[sequence_id] = self._numbers

    def _report(self, **fields: object) -> None:
        self._numbers += 1
        change = SequenceLimitChange(number=self._numbers, **fields)  # type: ignore[arg-type]
        self._reported.append(self._reports.limits_changed(change))

    def _ends(self, outcome: SequenceLimitOutcome) -> bool:
        """Ends the wait of a sequence. Returns whether the outcome is of its newest question."""
        if self._asked.get(outcome.sequence_id) != outcome.number:
            return False
        del self._asked[outcome.sequence_id]
        return True

    def _may_begin(self, run: Run) -> bool:
        return all(hold.sequence.id in self._held for hold in self._chain.keys_around(run.job_id))

    def _is_in(self, sequence_id: str, run: Run) -> bool:
        return any(hold.sequence.id == sequence_id for hold in self._chain.keys_around(run.job_id))

    def _taken(self, job_ids: Iterable[str]) -> list[WaitingTry]:
        """Removes the tries of some jobs from those that wait, and returns them."""
        taken = [self._deferred.pop(job_id) for job_id in list(job_ids) if job_id in self._deferred]
        for one in taken:
            for hold in self._chain.keys_around(one.run.job_id):
                if waiting := self._waiting_for.get(hold.sequence.id):
                    waiting.pop(one.run.job_id, None)
        return taken
