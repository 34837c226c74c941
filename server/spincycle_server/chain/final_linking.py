"""Links the `finally` parts of a chain to the sequences after which they run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from spincycle_server.chain.finals import FinalPart
from spincycle_server.chain.linked_chain import ChainJob, ChainSequence


def link_finals(
    marked: Iterable[str], jobs: Mapping[str, ChainJob], sequences: Mapping[str, ChainSequence]
) -> list[FinalPart]:
    """Links the `finally` parts, and returns them, the innermost first.

    Args:
        marked: The ids of the jobs of `finally` parts.
        jobs: All jobs by id.
        sequences: All sequences by id.

    Raises:
        ValueError: A part does not fit the chain. The message says why.
    """
    flagged = frozenset(marked)
    bodies: dict[str, ChainSequence] = {}
    for job in jobs.values():
        if (job.sequence.is_own and job.sequence.id in flagged) is not (job.id in flagged):
            raise ValueError(f"job {job.id} and its sequence must both be finally jobs, or neither")
        for child in job.children:
            bodies[child.id] = job.sequence
    outermost = [
        sequence
        for sequence_id, sequence in sequences.items()
        if sequence_id in flagged and not (sequence.parent and sequence.parent.id in flagged)
    ]
    finals = [_link(sequence, bodies.get(sequence.id), jobs) for sequence in outermost]
    for final in finals:
        _mark(final, flagged)
    return sorted(finals, key=lambda final: -final.sequence.depth)


def _link(sequence: ChainSequence, body: ChainSequence | None, jobs: Mapping[str, ChainJob]) -> FinalPart:
    """Links one part to the sequence whose last job is before the first job of the part."""
    around, first = sequence.parent, jobs[sequence.id]
    where = f"the finally part of job {sequence.id}"
    if body is None or around is None or first.missing != 1:
        raise ValueError(f"{where} must follow exactly one job, and be in a sequence")
    if body.parent is not around or not body.is_own or body.final is not None:
        raise ValueError(f"{where} must follow a sequence of its own, beside which it stands")
    if sequence.retry or around.retry or len(around.inner) > 2:
        raise ValueError(f"{where} and the sequence around it have no retries, and nothing else is in it")
    body.final = FinalPart(sequence, first, body, jobs[body.id])
    return body.final


def _mark(final: FinalPart, flagged: Set[str]) -> None:
    """Tells the sequences in a part and in its body about the part."""
    stack = [final.sequence]
    while stack:
        sequence = stack.pop()
        sequence.in_final = final
        stack += [inner for inner in sequence.inner if inner.id in flagged]
    for sequence in final.body.subtree():
        sequence.receivers = (*sequence.receivers, final.first)
