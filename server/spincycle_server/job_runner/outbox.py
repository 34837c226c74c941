"""The reports of this runner's chains that no Request Manager has committed yet.

The reports of a chain stay in order. The reporter takes a batch and sends it. Then it settles the batch
(committed or refused), or puts it back in front of newer reports.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from spincycle_grpc.v1.job_pb2 import SuspendedJobChain
from spincycle_grpc.v1.runner_reports_pb2 import (
    Assignment,
    ChainFinish,
    ChainReport,
    RefusedReport,
    StartedTry,
    TryReport,
)
from spincycle_server.telemetry.limits import WAITING_REPORTS, WAITING_TRIES, LimitUse

ChainEnd: TypeAlias = ChainFinish | SuspendedJobChain
"""The end of a chain on this runner: a final state, or the suspended chain."""

_Key: TypeAlias = tuple[str, int]

MAX_BATCH_TRIES = 10_000
"""The maximum number of tries in one message."""

MAX_BATCH_BYTES = 8 * 1024 * 1024
"""The maximum size in bytes of the tries and the suspended chains in one message, unless one is larger."""


class ReportRefusedError(Exception):
    """A Request Manager refused a report of a chain. `reason` is the RefusalReason."""

    def __init__(self, reason: int) -> None:
        super().__init__(f"report refused, reason {reason}")
        self.reason = reason


class Finished(NamedTuple):
    """The progress of a chain.

    Attributes:
        jobs: How many jobs are COMPLETE.
        tasks: How many of them do more than to connect other jobs.
    """

    jobs: int
    tasks: int


_NOTHING = Finished(0, 0)


@dataclass(slots=True)
class _ChainEntry:
    """The reports of one chain: finished tries, each with its waiter, and perhaps the end of the chain.

    The claim waiter waits for the confirmation that the assignment is still valid.
    """

    assignment: Assignment
    claim_waiter: asyncio.Future[None] | None = None
    started: list[tuple[StartedTry, asyncio.Future[None]]] = field(default_factory=list)
    is_cleared: bool = False
    tries: deque[tuple[TryReport, asyncio.Future[None] | None]] = field(default_factory=deque)
    finished: Finished = _NOTHING
    end: ChainEnd | None = None
    end_waiter: asyncio.Future[None] | None = None

    @property
    def end_size(self) -> int:
        """The bytes of the end, if it is a suspended chain. Other ends are small."""
        return self.end.ByteSize() if isinstance(self.end, SuspendedJobChain) else 0


@dataclass(slots=True)
class Batch:
    """Reports in flight to a Request Manager."""

    entries: list[_ChainEntry]

    def reports(self) -> list[ChainReport]:
        """Returns the messages, one per chain."""
        return [_message(entry) for entry in self.entries]


class Outbox:
    """The queue of reports.

    Args:
        max_tries: The outbox is full with this many queued tries.
        max_bytes: The outbox is also full with this many bytes of queued tries.
    """

    def __init__(self, *, max_tries: int = 100_000, max_bytes: int = 256 * 1024 * 1024) -> None:
        self._max_tries = max_tries
        self._max_bytes = max_bytes
        self._waiting: dict[_Key, _ChainEntry] = {}
        self._count = 0
        self._bytes = 0
        self._filled = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._in_flight = 0
        self._empty = asyncio.Event()
        self._empty.set()

    def limits(self) -> Iterable[LimitUse]:
        """Returns the limits of queued tries and of their bytes, and how many there are."""
        return (
            LimitUse(WAITING_TRIES, self._max_tries, self._count),
            LimitUse(WAITING_REPORTS, self._max_bytes, self._bytes),
        )

    @property
    def full(self) -> bool:
        """Whether chains must not start more jobs until there is room."""
        return self._count >= self._max_tries or self._bytes >= self._max_bytes

    def add_claim(self, assignment: Assignment, finished: Finished, waiter: asyncio.Future[None]) -> None:
        """Asks whether an assignment is still valid. The waiter is done when that is confirmed."""
        entry = self._entry(assignment)
        entry.finished = finished
        entry.claim_waiter = waiter

    def add_started(
        self,
        assignment: Assignment,
        started: StartedTry,
        finished: Finished,
        waiter: asyncio.Future[None],
    ) -> None:
        """Adds a try that is about to start. The waiter is done when that is committed."""
        entry = self._entry(assignment)
        entry.finished = max(entry.finished, finished)
        entry.started.append((started, waiter))

    def add_cleared(self, assignment: Assignment, finished: Finished) -> None:
        """Adds that a chain is no longer a suspect."""
        entry = self._entry(assignment)
        entry.finished = max(entry.finished, finished)
        entry.is_cleared = True

    def add_try(
        self,
        assignment: Assignment,
        report: TryReport,
        finished: Finished,
        waiter: asyncio.Future[None] | None = None,
    ) -> None:
        """Adds a finished try. The waiter is done when the try is committed."""
        entry = self._entry(assignment)
        entry.tries.append((report, waiter))
        entry.finished = finished
        self._add(1, _size(report))

    def add_end(
        self, assignment: Assignment, end: ChainEnd, finished: Finished, waiter: asyncio.Future[None]
    ) -> None:
        """Adds the end of a chain. The waiter is done when all reports of the chain are committed."""
        entry = self._entry(assignment)
        entry.finished = finished
        entry.end = end
        entry.end_waiter = waiter

    def forget(self, assignment: Assignment) -> None:
        """Drops the queued reports of a chain. Their waiters are never done."""
        entry = self._waiting.pop(_key(assignment), None)
        if entry is not None:
            self._remove(len(entry.tries), _size_of(entry))
            self._check_empty()

    def take(self) -> Batch:
        """Takes the next batch, within the limits of a message. It is empty if nothing is queued."""
        taken: list[_ChainEntry] = []
        tries = size = ends = 0
        for key in list(self._waiting):
            entry = self._waiting[key]
            part = _ChainEntry(entry.assignment, entry.claim_waiter, finished=entry.finished)
            entry.claim_waiter = None
            part.started, entry.started = entry.started, []
            while entry.tries and tries < MAX_BATCH_TRIES and size + ends < MAX_BATCH_BYTES:
                tried = entry.tries.popleft()
                part.tries.append(tried)
                tries += 1
                size += _size(tried[0])
            end_size = 0 if entry.tries else entry.end_size
            is_full = bool(taken or part.tries) and size + ends + end_size > MAX_BATCH_BYTES
            if entry.tries or (end_size and is_full):
                if part.tries or part.started or part.claim_waiter is not None:
                    taken.append(part)
                break
            ends += end_size
            part.is_cleared = entry.is_cleared
            part.end, part.end_waiter = entry.end, entry.end_waiter
            taken.append(part)
            del self._waiting[key]
        self._remove(tries, size)
        if not self._waiting:
            self._filled.clear()
        self._in_flight += len(taken)
        return Batch(taken)

    def put_back(self, batch: Batch) -> None:
        """Puts a batch that was not acknowledged back in front of newer reports."""
        self._in_flight -= len(batch.entries)
        later, self._waiting = self._waiting, {_key(entry.assignment): entry for entry in batch.entries}
        for key, entry in later.items():
            earlier = self._waiting.setdefault(key, entry)
            if earlier is not entry:
                earlier.started.extend(entry.started)
                earlier.is_cleared |= entry.is_cleared
                earlier.tries.extend(entry.tries)
                earlier.finished = entry.finished
                earlier.end, earlier.end_waiter = entry.end, entry.end_waiter
        self._add(
            sum(len(entry.tries) for entry in batch.entries), sum(_size_of(entry) for entry in batch.entries)
        )
        if self._waiting:
            self._filled.set()

    def settle(self, batch: Batch, refused: Iterable[RefusedReport]) -> None:
        """Gives the waiters of an acknowledged batch their results, or ReportRefusedError."""
        reasons = {_key(refusal.assignment): refusal.reason for refusal in refused}
        for entry in batch.entries:
            reason = reasons.get(_key(entry.assignment))
            for waiter in _waiters(entry):
                if waiter.done():
                    continue
                if reason is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(ReportRefusedError(reason))
                    waiter.exception()  # Counts as seen: a chain that is dropped awaits no more reports.
        self._in_flight -= len(batch.entries)
        self._check_empty()

    def nudge(self) -> None:
        """Makes `wait_filled` return even if nothing is queued."""
        self._filled.set()

    async def wait_filled(self) -> None:
        """Returns when a report is queued, or after `nudge`."""
        await self._filled.wait()

    async def wait_empty(self) -> None:
        """Returns when nothing is queued and nothing is in flight."""
        await self._empty.wait()

    async def wait_room(self) -> None:
        """Returns when the outbox is not full."""
        await self._has_room.wait()

    def _entry(self, assignment: Assignment) -> _ChainEntry:
        key = _key(assignment)
        entry = self._waiting.get(key)
        if entry is None:
            entry = self._waiting[key] = _ChainEntry(assignment)
            self._filled.set()
            self._empty.clear()
        return entry

    def _add(self, tries: int, size: int) -> None:
        self._count += tries
        self._bytes += size
        if self.full:
            self._has_room.clear()

    def _check_empty(self) -> None:
        if not self._waiting and self._in_flight == 0:
            self._empty.set()

    def _remove(self, tries: int, size: int) -> None:
        self._count -= tries
        self._bytes -= size
        if not self.full:
            self._has_room.set()


def _key(assignment: Assignment) -> _Key:
    return assignment.request_id, assignment.epoch


def _size(report: TryReport) -> int:
    """Returns the approximate bytes of a try, rounded up. An exact count would cost too much time."""
    entry = report.entry
    data = report.job_data.ByteSize() if report.HasField("job_data") else 0
    texts = (entry.stdout, entry.stderr, entry.error)
    return sum(len(text) if text.isascii() else 4 * len(text) for text in texts) + data + 200


def _size_of(entry: _ChainEntry) -> int:
    return sum(_size(report) for report, _ in entry.tries)


def _waiters(entry: _ChainEntry) -> list[asyncio.Future[None]]:
    waiters = [
        entry.claim_waiter,
        *(waiter for _, waiter in entry.started),
        *(waiter for _, waiter in entry.tries),
        entry.end_waiter,
    ]
    return [waiter for waiter in waiters if waiter is not None]


def _message(entry: _ChainEntry) -> ChainReport:
    message = ChainReport(
        assignment=entry.assignment,
        tries=[report for report, _ in entry.tries],
        finished_jobs=entry.finished.jobs,
        finished_tasks=entry.finished.tasks,
        started=[started for started, _ in entry.started],
        cleared=entry.is_cleared,
    )
    if isinstance(entry.end, ChainFinish):
        message.finish.CopyFrom(entry.end)
    elif entry.end is not None:
        message.suspended.CopyFrom(entry.end)
    return message
