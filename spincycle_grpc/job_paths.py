"""The paths of jobs: how people tell the jobs of nested sequences apart.

The path of a job is, for example, `rolling-restart / host web7 / drain`. It is made from the labels that
are stored with the job chain.
"""

from __future__ import annotations

from collections.abc import Iterable

from spincycle_grpc.v1.job_pb2 import Job, JobChain
from spincycle_grpc.v1.state_pb2 import STATE_COMPLETE

MAX_PARTS = 16
"""The maximum number of parts of a path. In a longer one, "…" stands for the outermost parts."""

MAX_LABEL = 100
"""The longest part of a path, in characters. The middle of a longer one is left out."""

SHORTEST_BEGINNING = 2
"""The minimum length of the beginning of a job id that stands for the id."""

SEPARATOR = " / "
"""What people see between two parts of a path."""

_LEFT_OUT = "…"
_NOOP = "noop"


def path_of(chain: JobChain, job_id: str) -> tuple[str, ...]:
    """Returns the path of a job, from the type of the request to the name of the job.

    Takes the same time for all jobs, however deep the chain is nested.

    Args:
        chain: The whole job chain.
        job_id: The id of one of its jobs.

    Returns:
        The parts. Empty if the chain has no labels, and for a job that only connects other jobs.
    """
    labels, jobs = chain.path_labels, chain.jobs
    if not labels:
        return ()
    job = jobs[job_id]
    if connects(job):
        return ()
    parts = [shortened(job.name, MAX_LABEL)]
    if job_id in labels and job.sequence_id != job_id:
        parts.append(shortened(labels[job_id], MAX_LABEL))
    return _with_sequences(chain, job.sequence_id, parts)


def sequence_path_of(chain: JobChain, job_id: str) -> tuple[str, ...]:
    """Returns the path of a sequence, or of an element of `each`: without the name of a job.

    Args:
        chain: The whole job chain.
        job_id: An id that has a label: that of the first job of a sequence, or of a job of an `each`.
    """
    sequence_id = chain.jobs[job_id].sequence_id
    if sequence_id == job_id:
        return _with_sequences(chain, sequence_id, [])
    return _with_sequences(chain, sequence_id, [shortened(chain.path_labels[job_id], MAX_LABEL)])


def _with_sequences(chain: JobChain, sequence_id: str, parts: list[str]) -> tuple[str, ...]:
    """Adds the labels of the sequences around a job to the inner end of its path, which is reversed."""
    while sequence_id:
        if len(parts) == MAX_PARTS - 1 and _parent(chain, sequence_id):
            parts.append(_LEFT_OUT)
            break
        label = chain.path_labels.get(sequence_id)
        if label != "":
            parts.append(_LEFT_OUT if label is None else shortened(label, MAX_LABEL))
        sequence_id = _parent(chain, sequence_id)
    parts.reverse()
    return tuple(parts)


def path_text(path: Iterable[str]) -> str:
    """Returns a path as people see it: `rolling-restart / host web7 / drain`. "" without parts."""
    return SEPARATOR.join(path)


def ids_beginning_with(chain: JobChain, beginning: str) -> list[str]:
    """Returns the sorted ids of the jobs whose id begins so. A single character is not enough."""
    if len(beginning) < SHORTEST_BEGINNING:
        return []
    return sorted(job_id for job_id in chain.jobs if job_id.startswith(beginning))


def connects(job: Job) -> bool:
    """Whether a job only connects other jobs: it comes from no node of a spec."""
    return job.type == _NOOP and job.name == _NOOP


def count_tasks(chain: JobChain) -> tuple[int, int]:
    """Returns how many jobs do not only connect others, and how many of them are COMPLETE."""
    tasks = [job for job in chain.jobs.values() if not connects(job)]
    return len(tasks), sum(job.state == STATE_COMPLETE for job in tasks)


def shortened(text: str, longest: int) -> str:
    """Returns a text of at most `longest` characters. The middle of a longer text becomes "…"."""
    if len(text) <= longest:
        return text
    end = (longest - 1) // 3
    return f"{text[: longest - 1 - end]}{_LEFT_OUT}{text[-end:]}"


def _parent(chain: JobChain, sequence_id: str) -> str:
    if sequence_id not in chain.jobs:
        return ""
    return chain.jobs[sequence_id].parent_sequence_id
