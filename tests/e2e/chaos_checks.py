"""Checks of a request's journal, which records what its jobs did, against its job log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from spincycle_grpc.state import State
from tests.e2e.kinds import Kind
from tests.e2e.processes import ServerProcess

MOMENT = 300_000_000
"""Nanoseconds that a process may need after a freeze to notice that its lease has expired."""


@dataclass
class Troubles:
    """The disturbances of Job Runners by pid. Times are nanoseconds since the Unix epoch.

    Attributes:
        silent: The runners whose log is lost, so that nobody knows when their leases expired.
        kills: The time when each runner was killed.
        pauses: Pid, start, and end of each freeze.
        lapses: Pid and time at which a runner noticed that its lease had expired.
    """

    silent: set[int] = field(default_factory=set)
    kills: dict[int, int] = field(default_factory=dict)
    pauses: list[tuple[int, int, int]] = field(default_factory=list)
    lapses: list[tuple[int, int]] = field(default_factory=list)

    def add_lapses(self, server: ServerProcess, skew: int = 0) -> None:
        """Adds the lapses of leases that a Job Runner has logged, whose clock is `skew` seconds ahead."""
        self.lapses += [
            (server.process.pid, nanoseconds(event["timestamp"]) - skew * 1_000_000_000)
            for event in list(server.events)
            if "chains are suspended" in event.get("message", "")
        ]

    def has_lost_its_lease(self, pid: int, now: int) -> bool:
        """Whether another runner may run the jobs of a process at this time."""
        return (
            pid in self.silent
            or self.kills.get(pid, now + 1) <= now
            or any(lapsed == pid and time <= now for lapsed, time in self.lapses)
            or any(paused == pid and began <= now <= ended for paused, began, ended in self.pauses)
        )

    def was_frozen(self, pid: int, now: int) -> bool:
        """Whether a process may have acted at this time without knowing that its lease had expired."""
        return any(
            paused == pid and began - MOMENT <= now <= ended + MOMENT for paused, began, ended in self.pauses
        )


def nanoseconds(timestamp: str) -> int:
    """Returns a log timestamp as nanoseconds since the Unix epoch, precise to a microsecond."""
    return int(datetime.fromisoformat(timestamp).timestamp() * 1_000_000) * 1000


@dataclass
class Attempt:
    """One run of a job, as the journal records it.

    Attributes:
        start: The line at its start.
        end: The line at its end, or None if the run never ended.
        number: The try number in the job log, or 0 if the log does not contain this run.
    """

    start: dict[str, Any]
    end: dict[str, Any] | None = None
    number: int = 0

    @property
    def pid(self) -> int:
        return int(self.start["pid"])

    def ended_as(self, event: str, before: int | None = None) -> bool:
        """Whether it ended with an event: "COMPLETE", "FAIL" or "STOPPED", and not after a time."""
        return (
            self.end is not None
            and self.end["event"] == event
            and (before is None or self.end["time"] <= before)
        )


def assert_done_once(
    kind: Kind,
    request: Mapping[str, Any],
    log: Sequence[Mapping[str, Any]],
    journal: Iterable[dict[str, Any]],
    troubles: Troubles,
) -> None:
    """Checks the journal of a finished request against its job log.

    Raises:
        AssertionError: A job ran twice at once, too early, or again after it was COMPLETE, the journal and
            the log disagree, or a `finally` part has not run.
    """
    chain = request["JobChain"]
    jobs = {job_id for job_id, job in chain["jobs"].items() if job["type"] in ("journal", "newer")}
    finals = {job_id for job_id in jobs if chain["jobs"][job_id].get("isFinally")}
    before = {
        # What a `finally` part cleans up need not be COMPLETE.
        job_id: _jobs_before(chain, job_id, jobs) & (finals if job_id in finals else jobs)
        for job_id in jobs
    }
    attempts: list[Attempt] = []
    complete: set[str] = set()
    for line in journal:
        if line["job"] not in jobs:
            continue
        if line["event"] == "start":
            _check_start(line, attempts, before[line["job"]] - complete, troubles)
            attempts.append(Attempt(line))
            continue
        _open(attempts, line).end = line
        if line["event"] == "COMPLETE":
            complete.add(line["job"])
    if finals:
        done = {entry["jobId"] for entry in log if entry["state"] == State.COMPLETE}
        assert finals <= done, f"the request ended without its finally parts: {request['id']}"
    _check_log([entry for entry in log if entry["jobId"] in jobs], attempts, troubles)
    _check_nothing_again(kind, attempts, troubles)


def _jobs_before(chain: Mapping[str, Any], job_id: str, jobs: set[str]) -> set[str]:
    """Returns the closest journal jobs that a job depends on. Noops between them do not count."""
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
    raise AssertionError(f"the journal has an end without a start: {line}")


def _check_start(
    line: dict[str, Any], attempts: list[Attempt], not_complete: set[str], troubles: Troubles
) -> None:
    now = line["time"]
    for other in attempts:
        if other.start["job"] == line["job"] and other.end is None:
            assert troubles.has_lost_its_lease(other.pid, now) or troubles.was_frozen(line["pid"], now), (
                f"two tries of a job ran at once: {other.start} and {line}"
            )
    assert not not_complete, f"a job ran before its dependencies {not_complete}: {line}"


def _check_log(log: list[Mapping[str, Any]], attempts: list[Attempt], troubles: Troubles) -> None:
    for entry in log:
        attempt = _attempt_of(entry, attempts)
        state = State(entry["state"])
        if attempt is None:
            # The job was stopped, or timed out, before it ran.
            has_not_begun = state is State.STOPPED or "timed out" in entry["error"]
            assert has_not_begun, f"the journal lacks a try of the log: {entry}"
            continue
        assert not attempt.number, f"the log has a try twice: {attempt} and {entry}"
        attempt.number = entry["try"]
        assert attempt.end is not None, (
            f"the log has a try that the journal does not end: {attempt} and {entry}"
        )
        said = State[attempt.end["event"]]
        agrees = said is state or (
            # If a job is stopped or times out, the log records that instead of its own result.
            said is not State.COMPLETE and (state is State.STOPPED or "timed out" in entry["error"])
        )
        assert agrees, f"the log and the journal have different states: {attempt} and {entry}"
    for attempt in attempts:
        if attempt.end is not None and not attempt.number:
            lost = (
                attempt.pid in troubles.silent
                or attempt.pid in troubles.kills
                or any(pid == attempt.pid for pid, _ in troubles.lapses)
                or any(pid == attempt.pid for pid, _, _ in troubles.pauses)
            )
            assert lost, f"the log lacks a try that ended: {attempt}"


def _attempt_of(entry: Mapping[str, Any], attempts: list[Attempt]) -> Attempt | None:
    """Returns the attempt of a log entry: the first that started between the entry's times."""
    for attempt in attempts:
        same = attempt.start["job"] == entry["jobId"]
        if same and entry["startedAt"] <= attempt.start["clock"] <= entry["finishedAt"]:
            return attempt
    return None


def _check_nothing_again(kind: Kind, attempts: list[Attempt], troubles: Troubles) -> None:
    """Checks that a job that the log has as COMPLETE ran again only because its sequence was retried.

    A process that is frozen between its check of the lease and the first line of a job may run that job
    afterwards. It cannot know that the lease has expired, and the log does not have what it did.
    """
    for index, later in enumerate(attempts):
        if not later.number and troubles.was_frozen(later.pid, later.start["time"]):
            continue
        complete = [
            one
            for one in attempts[:index]
            if one.start["job"] == later.start["job"] and one.number and one.ended_as("COMPLETE")
        ]
        # Each retry of the sequence follows a failure. A job beside the one that failed may start after that.
        failures = sum(one.ended_as("FAIL", before=later.start["time"]) for one in attempts)
        retries = failures if kind.sequence_retries else 0
        assert len(complete) <= retries, f"a COMPLETE job ran again: {complete} and {later}"
