"""What must hold in the journal of a request: what its jobs really did, whatever the log says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from spincycle_grpc.state import State
from tests.e2e.kinds import Kind

MOMENT = 300_000_000
"""Nanoseconds within which a process that was frozen notices that its lease is over."""


@dataclass
class Troubles:
    """When the Job Runners were in trouble, by their pids, in nanoseconds since the Unix epoch.

    Attributes:
        kills: When one was killed.
        pauses: From when until when one was frozen.
        lapses: When one found out that its lease was over.
    """

    kills: dict[int, int] = field(default_factory=dict)
    pauses: list[tuple[int, int, int]] = field(default_factory=list)
    lapses: list[tuple[int, int]] = field(default_factory=list)

    def has_lost_its_lease(self, pid: int, now: int) -> bool:
        """Whether others may do at a time what a process did before."""
        return (
            self.kills.get(pid, now + 1) <= now
            or any(lapsed == pid and time <= now for lapsed, time in self.lapses)
            or any(paused == pid and began <= now <= ended for paused, began, ended in self.pauses)
        )

    def was_frozen(self, pid: int, now: int) -> bool:
        """Whether a process may have done something at a time without knowing that its lease was over."""
        return any(
            paused == pid and began - MOMENT <= now <= ended + MOMENT for paused, began, ended in self.pauses
        )


@dataclass
class Attempt:
    """One run of a job, from its line at the start to that at its end, if there is one.

    Attributes:
        number: Which try it was by the job log; 0: it is not there.
    """

    start: dict[str, Any]
    end: dict[str, Any] | None = None
    number: int = 0

    @property
    def pid(self) -> int:
        return int(self.start["pid"])


def assert_done_once(
    kind: Kind,
    request: Mapping[str, Any],
    log: Iterable[Mapping[str, Any]],
    journal: Iterable[dict[str, Any]],
    troubles: Troubles,
) -> None:
    """Checks the journal of a request that has ended, against its log."""
    chain = request["JobChain"]
    jobs = {job_id for job_id, job in chain["jobs"].items() if job["type"] == "journal"}
    before = {job_id: _jobs_before(chain, job_id, jobs) for job_id in jobs}
    attempts: list[Attempt] = []
    complete: set[str] = set()
    for line in journal:
        if line["event"] == "start":
            _check_start(line, attempts, before[line["job"]] - complete, troubles)
            attempts.append(Attempt(line))
            continue
        _open(attempts, line).end = line
        if line["event"] == "COMPLETE":
            complete.add(line["job"])
    _check_log([entry for entry in log if entry["jobId"] in jobs], attempts, troubles)
    _check_nothing_again(kind, attempts)


def _jobs_before(chain: Mapping[str, Any], job_id: str, jobs: set[str]) -> set[str]:
    """Returns the jobs with a journal right before a job, with none but noops between."""
    parents = [parent for parent, following in chain["adjacencyList"].items() if job_id in following]
    found: set[str] = set()
    for parent in parents:
        found |= {parent} if parent in jobs else _jobs_before(chain, parent, jobs)
    return found


def _open(attempts: list[Attempt], line: dict[str, Any]) -> Attempt:
    for attempt in reversed(attempts):
        same = (attempt.start["job"], attempt.pid) == (line["job"], line["pid"])
        if same and attempt.end is None:
            return attempt
    raise AssertionError(f"an end without a start: {line}")


def _check_start(
    line: dict[str, Any], attempts: list[Attempt], not_complete: set[str], troubles: Troubles
) -> None:
    now = line["time"]
    for other in attempts:
        if other.start["job"] == line["job"] and other.end is None:
            assert troubles.has_lost_its_lease(other.pid, now) or troubles.was_frozen(line["pid"], now), (
                f"two tries at once: {other.start} and {line}"
            )
    assert not not_complete, f"a job before those that it depends on, {not_complete}: {line}"


def _check_log(log: list[Mapping[str, Any]], attempts: list[Attempt], troubles: Troubles) -> None:
    for entry in log:
        attempt = _attempt_of(entry, attempts)
        state = State(entry["state"])
        if attempt is None:
            # It was told to end before it had begun.
            has_not_begun = state is State.STOPPED or "timed out" in entry["error"]
            assert has_not_begun, f"in the log alone: {entry}"
            continue
        assert not attempt.number, f"twice in the log: {attempt} and {entry}"
        attempt.number = entry["try"]
        assert attempt.end is not None, f"it ended in the log alone: {attempt} and {entry}"
        said = State[attempt.end["event"]]
        agrees = said is state or (
            # What is told to stop, or is out of time, has not failed or stopped by itself.
            said is not State.COMPLETE and (state is State.STOPPED or "timed out" in entry["error"])
        )
        assert agrees, f"the log and the journal differ: {attempt} and {entry}"
    for attempt in attempts:
        if attempt.end is not None and not attempt.number:
            lost = (
                attempt.pid in troubles.kills
                or any(pid == attempt.pid for pid, _ in troubles.lapses)
                or any(pid == attempt.pid for pid, _, _ in troubles.pauses)
            )
            assert lost, f"a try that ended is not in the log: {attempt}"


def _attempt_of(entry: Mapping[str, Any], attempts: list[Attempt]) -> Attempt | None:
    """Returns the attempt that a log entry is of: the first that began within its time."""
    for attempt in attempts:
        same = attempt.start["job"] == entry["jobId"]
        if same and entry["startedAt"] <= attempt.start["time"] <= entry["finishedAt"]:
            return attempt
    return None


def _check_nothing_again(kind: Kind, attempts: list[Attempt]) -> None:
    """Checks that what is COMPLETE in the log ran again only when its sequence was tried again."""
    for index, attempt in enumerate(attempts):
        if attempt.end is None or not attempt.number or attempt.end["event"] != "COMPLETE":
            continue
        for later in attempts[index + 1 :]:
            if later.start["job"] != attempt.start["job"]:
                continue
            failed = any(
                one.end is not None
                and one.end["event"] == "FAIL"
                and attempt.start["time"] <= one.end["time"] <= later.start["time"]
                for one in attempts
            )
            assert failed * kind.sequence_retries, f"done again: {attempt} and {later}"
