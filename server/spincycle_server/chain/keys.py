"""The keys that the sequences of a chain hold while they run.

A sequence uses its keys from the moment at which a job in it is to run until it is over, with its own
retries and the `finally` parts in it. A pause and a suspension change nothing. If a sequence around it is
tried again, it asks anew. What is used follows from what runs and waits, so a chain that is resumed or
rebuilt uses the same keys.

The driver asks for keys. A try of a job begins when all sequences around the job hold their keys. Until then,
the chain takes the try for one that runs: so a stop, a pause and a timeout end such a wait as they end a try.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from spincycle_grpc.state import State
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_grpc.v1.limit_pb2 import Limit
from spincycle_server.chain.linked_chain import ChainSequence, Phase


@dataclass(eq=False, slots=True)
class Hold:
    """The keys of one sequence, without those that a sequence around it or the request holds.

    Attributes:
        sequence: The sequence.
        limits: The keys, each once.
        around: The holds of the sequences around it, the outermost first.
        keys: The keys of the chain.
        is_used: The sequence needs its keys now.
    """

    sequence: ChainSequence
    limits: tuple[Limit, ...]
    around: tuple[Hold, ...]
    keys: Keys
    is_used: bool = False

    @property
    def outlasts_stop(self) -> bool:
        """Whether the sequence needs its keys also after a stop, until a second one skips `finally` parts.

        It is in such a part, or one in it must run: so it is if an earlier request has run a part of it.
        """
        if self.sequence.in_final is not None:
            return True
        if not self.sequence.owed:
            return False
        finals = (part.final for part in self.sequence.subtree())
        return any(final.is_owed and final.must_run for final in finals if final is not None)

    def touch(self) -> None:
        """Notices that less runs or waits in the sequence than before."""
        if self.is_used:
            self.keys.touched.append(self)


@dataclass(eq=False, slots=True)
class Keys:
    """The keys of one chain.

    Attributes:
        holds: The holds by the ids of their sequences.
        touched: The used holds of which the sequence may be over.
        drained: The sequences that wait for the ends of their jobs, to begin their next tries.
    """

    holds: dict[str, Hold] = field(default_factory=dict)
    touched: list[Hold] = field(default_factory=list)
    drained: list[ChainSequence] = field(default_factory=list)

    def touch_all(self) -> None:
        """Looks at all sequences anew."""
        self.touched += [hold for hold in self.holds.values() if hold.is_used]

    def unneeded(self) -> list[str]:
        """Returns the jobs that run in the sequences that drain since the last call."""
        drained, self.drained = self.drained, []
        return [
            job.id
            for sequence in drained
            if sequence.phase is Phase.DRAINING
            for part in sequence.without_finals()
            for job in part.jobs
            if job.state is State.RUNNING and not job.waits
        ]

    def use(self, holds: Iterable[Hold]) -> Iterator[str]:
        """Uses keys, because a job is to run. Yields the sequences that did not use theirs before."""
        for hold in holds:
            if not hold.is_used:
                hold.is_used = True
                yield hold.sequence.id

    def use_again(self, *, without_finals: bool) -> Iterator[str]:
        """Uses the keys of a chain that has run before. Yields the sequences that did not use theirs."""
        return self.use(one for one in self.holds.values() if _is_busy(one, without_finals=without_finals))

    def given_up(self, *, is_kept: bool, without_finals: bool) -> list[str]:
        """Returns the sequences that give up their keys, because they are over.

        Args:
            is_kept: The chain pauses or is suspended. So sequences keep their keys, unless they are complete.
            without_finals: The `finally` parts that the chain owes do not run.
        """
        touched, self.touched = dict.fromkeys(self.touched), []
        over = [
            hold
            for hold in touched
            if (hold.sequence.is_complete() if is_kept else not _is_busy(hold, without_finals=without_finals))
        ]
        for hold in over:
            hold.is_used = False
        return [hold.sequence.id for hold in over]


def _is_busy(hold: Hold, *, without_finals: bool) -> bool:
    """Whether a job runs in a sequence, or will run in its tries that are left, or in a `finally` part."""
    return hold.sequence.is_busy or (bool(hold.sequence.owed) and not without_finals)


def link_keys(chain: JobChain, limited: Iterable[str], sequences: Mapping[str, ChainSequence]) -> Keys:
    """Links the keys of a chain to its sequences.

    Args:
        chain: The chain.
        limited: The ids of the jobs that have limits.
        sequences: All sequences by id.

    Raises:
        ValueError: A job has limits and is not the first one of a sequence.
    """
    keys = Keys()
    for job_id in limited:
        if job_id not in sequences:
            raise ValueError(f"job {job_id} has sequenceLimits, but is not the first job of a sequence")
    held = frozenset(limit.key for limit in chain.limits)
    stack: list[tuple[ChainSequence, tuple[Hold, ...], frozenset[str]]]
    stack = [(one, (), held) for one in sequences.values() if one.is_own and one.parent is None]
    while stack:
        sequence, around, held = stack.pop()
        wanted = {one.key: one for one in chain.jobs[sequence.id].sequence_limits if one.key not in held}
        if wanted:
            hold = Hold(sequence, tuple(wanted.values()), around, keys)
            keys.holds[sequence.id] = sequence.hold = hold
            around, held = (*around, hold), held.union(wanted)
        sequence.holds = around
        stack += [(inner, around, held) for inner in sequence.inner]
    return keys
