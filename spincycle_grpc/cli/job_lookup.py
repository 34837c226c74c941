"""Finds the jobs of a request that a user names by an id, its beginning, or a part of their path."""

from __future__ import annotations

import re
from difflib import get_close_matches

from spincycle_grpc.client import Client
from spincycle_grpc.errors import InvalidArgumentError, NotFoundError
from spincycle_grpc.job_paths import SEPARATOR, ids_beginning_with, path_of, path_text
from spincycle_grpc.v1.job_pb2 import JobChain

_JOB_ID = re.compile(r"[0-9A-Za-z]{4}")
_MOST_NAMED = 5


def find_jobs(client: Client, request_id: str, named: str) -> list[str]:
    """Returns the ids of the jobs that a text names.

    A text that has the form of a job id is one, if the request has this job. Any other text is a part of
    paths: the name of a job, or of a sequence, which stands for all its jobs. "host web7 / drain" is one job,
    "host web7" or "web7" is all jobs of this host, and "drain" is this job of all hosts. A text that is in no
    path is the beginning of an id.

    Raises:
        NotFoundError: The text names no job. Reason: NO_SUCH_JOB.
        InvalidArgumentError: The ids of several jobs begin so. Reason: AMBIGUOUS_JOB.
        SpinCycleError: A call failed.
    """
    if _JOB_ID.fullmatch(named) and _has_finished_a_try(client, request_id, named):
        return [named]
    chain = client.job_chain(request_id)
    if named in chain.jobs:
        return [named]
    wanted = [part.strip() for part in named.split(SEPARATOR.strip())]
    found = [job_id for job_id in sorted(chain.jobs) if _has_part(_path(chain, job_id), wanted)]
    return found or [_job_beginning_with(chain, request_id, named)]


def _job_beginning_with(chain: JobChain, request_id: str, named: str) -> str:
    found = ids_beginning_with(chain, named)
    if len(found) > 1:
        some = ", ".join(f"{job_id} ({path_text(_path(chain, job_id))})" for job_id in found[:_MOST_NAMED])
        more = ", ..." if len(found) > _MOST_NAMED else ""
        raise InvalidArgumentError(
            f"the ids of {len(found)} jobs begin with {named!r}: write the whole id: {some}{more}",
            reason="AMBIGUOUS_JOB",
        )
    if not found:
        near = get_close_matches(named, {part for job_id in chain.jobs for part in _path(chain, job_id)}, 1)
        advice = f"did you mean {near[0]!r}?" if near else f"spinc graph {request_id} shows its jobs"
        raise NotFoundError(f"request {request_id} has no job {named!r}: {advice}", reason="NO_SUCH_JOB")
    return found[0]


def _has_finished_a_try(client: Client, request_id: str, job_id: str) -> bool:
    """Whether a job is in the log. This is a small answer, and the job chain a large one."""
    return any(entry.job_id == job_id for entry in client.iter_log(request_id, job_id=job_id, page_size=1))


def _path(chain: JobChain, job_id: str) -> list[str]:
    return list(path_of(chain, job_id)) or [chain.jobs[job_id].name]


def _has_part(path: list[str], wanted: list[str]) -> bool:
    """Whether the wanted names stand in a path, one directly after the other."""
    return any(all(map(_is_named, path[start:], wanted)) for start in range(len(path) - len(wanted) + 1))


def _is_named(part: str, name: str) -> bool:
    """Whether a part of a path has a name. The element of `each` may be left out: "web7" for "host web7"."""
    return bool(name) and name in (part, part.partition(" ")[2])
