"""Finds the job from which users want to run a chain again: by its id, or by the end of its path."""

from __future__ import annotations

from collections.abc import Iterator

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.job_paths import (
    SEPARATOR,
    connects,
    ids_beginning_with,
    path_of,
    sequence_path_of,
    shortened,
)
from spincycle_grpc.v1.job_pb2 import JobChain

_MOST_NAMED = 5
"""The maximum number of jobs that an error names."""

_LONGEST_SHOWN = 120
"""The longest path in an error, in characters. Errors travel in headers."""

_COMPARED_FIRST = 10
"""Characters at the end of a name that are compared before its path is made."""


def job_called(chain: JobChain, name: str) -> str:
    """Returns the id of a job, or of the first job of a sequence.

    Args:
        chain: The job chain.
        name: The id of a job, or the end of the path of a job or of a sequence. Parts are separated by " / ":
            "host web7", "host web7 / drain". No other job or sequence may have a path that ends like this.
            If no path ends like this, at least two characters with which the id of one job begins.

    Raises:
        InvalidArgumentError: Nothing has this id or path (NO_SUCH_JOB), or several have it (AMBIGUOUS_JOB).
    """
    if name in chain.jobs:
        return name
    found = {job_id: path for job_id, path in _candidates(chain, name) if _ends_with(path, name)}
    having = "have the name"
    if not found:
        having = "have an id that begins with"
        found = {job_id: _path(chain, job_id) for job_id in ids_beginning_with(chain, name)}
    if len(found) == 1:
        return next(iter(found))
    if not found:
        raise InvalidArgumentError(
            "the job chain has no job or sequence with the id, the name or the path "
            f"{_shown(name)}: take one from the job log",
            reason="NO_SUCH_JOB",
            request_id=chain.request_id,
            field="from",
        )
    shown = sorted((path, job_id) for job_id, path in found.items())[:_MOST_NAMED]
    some = ", ".join(f"{_shown(path)} (id {job_id})" for path, job_id in shown)
    raise InvalidArgumentError(
        f"{len(found)} jobs or sequences {having} {_shown(name)}: name one by its path or its id: {some}"
        + (", ..." if len(found) > _MOST_NAMED else ""),
        reason="AMBIGUOUS_JOB",
        request_id=chain.request_id,
        field="from",
    )


def _candidates(chain: JobChain, name: str) -> Iterator[tuple[str, str]]:
    """Yields the ids and paths of jobs and sequences. Leaves out those whose last part cannot fit."""
    for job_id, job in chain.jobs.items():
        label = chain.path_labels.get(job_id)
        if label and name.endswith(label[-_COMPARED_FIRST:]):
            yield job_id, SEPARATOR.join(sequence_path_of(chain, job_id))
        if name.endswith(job.name[-_COMPARED_FIRST:]) and not connects(job):
            yield job_id, _path(chain, job_id)


def _path(chain: JobChain, job_id: str) -> str:
    return SEPARATOR.join(path_of(chain, job_id) or (chain.jobs[job_id].name,))


def _ends_with(path: str, name: str) -> bool:
    return path == name or path.endswith(SEPARATOR + name)


def _shown(text: str) -> str:
    return repr(shortened(text, _LONGEST_SHOWN))
