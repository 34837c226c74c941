"""The labels of jobs and sequences, the same in all formats."""

from __future__ import annotations

import json

from spincycle_grpc.job_paths import SEPARATOR
from spincycle_grpc.structs import from_struct
from spincycle_grpc.v1.approval_pb2 import Approval
from spincycle_grpc.v1.job_pb2 import Job, JobChain, RetryBackoff
from spincycle_grpc.v1.limit_pb2 import LIMIT_POLICY_REFUSE, LIMIT_POLICY_REPLACE, Limit

_LONGEST_VALUE = 60
_MOST_ARGS = 5
"""The maximum number of args in a box."""

_POLICIES = {LIMIT_POLICY_REPLACE: ", replaces others", LIMIT_POLICY_REFUSE: ", refused if reached"}
"""What happens if a limit is reached, to follow its key. Those who wait need no words."""


def is_noop(job: Job) -> bool:
    """Whether a job only connects other jobs."""
    return job.name == job.type == "noop" and not job.bytes


def plain(text: str) -> str:
    """Returns text without characters that control a terminal."""
    return text if text.isprintable() else json.dumps(text)


def title(job: Job, chain: JobChain) -> str:
    """Returns the name and type of a job, for example `drain (shell-command)`, or `noop`.

    The name of a job that a node with `each` has made begins with its element: `host web7 / drain`.
    """
    if is_noop(job):
        return "noop"
    element = "" if job.id == job.sequence_id else chain.path_labels.get(job.id, "")
    name = f"{plain(element)}{SEPARATOR}{plain(job.name)}" if element else plain(job.name)
    return f"{name} ({plain(job.type)})"


def sequence_title(job: Job, chain: JobChain) -> str:
    """Returns the name of the sequence that starts with a job, for example `host web7`.

    In a sequence with a `finally`, the other nodes are called `nodes`, as in its spec. Sequences of chains
    from before names were stored are all called `sequence`.
    """
    unnamed = "nodes" if job.sequence_id in chain.path_labels else "sequence"
    return plain(chain.path_labels.get(job.sequence_id, "")) or unnamed


def args(job: Job) -> list[str]:
    """Returns the args of a job as `name=value`, sorted by name. Values are JSON; long ones are cut."""
    if not job.HasField("args"):
        return []
    return [f"{plain(name)}={_short(value)}" for name, value in sorted(from_struct(job.args).items())]


def box_lines(job: Job, chain: JobChain) -> list[str]:
    """Returns the lines in the box of a job: its name and type, its args, its retries and its timeout."""
    shown = args(job)
    more = len(shown) - _MOST_ARGS
    cut = [f"and {more} more args"] if more > 0 else []
    return [title(job, chain), *shown[:_MOST_ARGS], *cut, *limits(job, chain)]


def limits(job: Job, chain: JobChain) -> list[str]:
    """Returns the retries and the timeout of a job: `retry 2`, `wait 50ms`, `timeout 5m`.

    The job before a sliding window has the limits of the window: `10 at a time`, `stop after 3 failures`. An
    approval has what it waits for: `2 approvals by dba, lead`, `timeout 24h`.
    """
    if job.HasField("approval"):
        return _approval_words(job.approval)
    backoff = job.retry_backoff if job.HasField("retry_backoff") else None
    words = _limits(job.retry, job.retry_wait, backoff, job.timeout)
    window = chain.windows.get(job.id)
    if window is not None:
        words.append(f"{window.max} at a time")
        if window.stop_after_failures:
            plural = "s" if window.stop_after_failures > 1 else ""
            words.append(f"stop after {window.stop_after_failures} failure{plural}")
    return words


def sequence_limits(job: Job, chain: JobChain) -> list[str]:
    """Returns the retries and the timeout of the sequence that starts with a job.

    It also has the keys that the sequence holds, or the request: `at most 2 with cluster/a`. Limits that let
    nobody wait say so: `at most 1 with cluster/a, replaces others`.
    """
    backoff = job.sequence_retry_backoff if job.HasField("sequence_retry_backoff") else None
    words = _limits(job.sequence_retry, job.sequence_retry_wait, backoff, job.sequence_timeout)
    held = job.sequence_limits if job.parent_sequence_id else chain.limits
    return words + [_limit_words(limit) for limit in held]


def _limits(retry: int, wait: str, backoff: RetryBackoff | None, timeout: str) -> list[str]:
    words = []
    if retry:
        words.append(f"retry {retry}")
        if wait not in ("", "0s"):
            words.append(f"wait {plain(wait)}{_growth(backoff)}")
    if timeout:
        words.append(f"timeout {plain(timeout)}")
    return words


def _limit_words(limit: Limit) -> str:
    return f"at most {limit.max} with {plain(limit.key)}{_POLICIES.get(limit.policy, '')}"


def _approval_words(approval: Approval) -> list[str]:
    number = f"{approval.approvals} approvals" if approval.approvals > 1 else "approval"
    words = [f"{number} by {plain(', '.join(approval.roles))}", f"timeout {plain(approval.timeout)}"]
    if approval.continue_on_timeout:
        words.append("then goes on")
    if approval.message:
        words.append(_short(approval.message))
    return words


def _growth(backoff: RetryBackoff | None) -> str:
    """Returns how pauses grow, to follow the first one: ` x2 up to 1m`."""
    if backoff is None or backoff.factor in (0, 1):
        return ""
    longest = f" up to {plain(backoff.max)}" if backoff.max else ""
    return f" x{backoff.factor:g}{longest}"


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return plain(text) if len(text) <= _LONGEST_VALUE else f"{plain(text[:_LONGEST_VALUE])}..."
