"""What has happened in the chains of this runner and no Request Manager has committed yet.

Everything stays in order within its chain. A batch is taken out, sent, and then either settled
(it was committed, or refused) or put back in front of what has come since.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from spincycle_grpc.v1.job_pb2 import SuspendedJobChain
from spincycle_grpc.v1.runner_reports_pb2 import (
    Assignment,
    ChainFinish,
    ChainReport,
    RefusedReport,
    TryReport,
)

ChainEnd: TypeAlias = ChainFinish | SuspendedJobChain
"""How a runner is done with a chain."""

_Key: TypeAlias = tuple[str, int]

MAX_BATCH_TRIES = 10_000
"""Tries in one message."""

MAX_BATCH_BYTES = 8 * 1024 * 1024
"""Bytes of tries in one message, unless a single try is larger."""


class ReportRefusedError(Exception):
    """A Request Manager refused a report of a chain. `reason` is the RefusalReason."""

    def __init__(self, reason: int) -> None:
        super().__init__(f"report refused, reason {reason}")
        self.reason = reason


@dataclass(slots=True)
class _ChainEntry:
    """What one chain has to report: finished tries, each with who waits for it, and perhaps its end.

    The claim is for whoever waits to hear that the assignment stands.
    """

    assignment: Assignment
    claim_waiter: asyncio.Future[None] | None = None
    tries: deque[tuple[TryReport, asyncio.Future[None] | None]] = field(default_factory=deque)
    finished_jobs: int = 0
    end: ChainEnd | None = None
    end_waiter: asyncio.Future[None] | None = None


@dataclass(slots=True)
class Batch:
    """Reports on their way to a Request Manager."""

    entries: list[_ChainEntry]

    def reports(self) -> list[ChainReport]:
        """Returns the messages, one a chain."""
        return [_message(entry) for entry in self.entries]


class Outbox:
    """The reports that wait, and the tries among them counted, so that there is a limit to them.

    Args:
        max_tries: As many waiting tries make the box full.
        max_bytes: Or as many bytes of them.
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
        self._on_their_way = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def full(self) -> bool:
        """Whether chains should start no more jobs until there is room."""
        return self._count >= self._max_tries or self._bytes >= self._max_bytes

    def add_claim(self, assignment: Assignment, finished_jobs: int, waiter: asyncio.Future[None]) -> None:
        """Asks whether an assignment stands. The waiter gets its result when a Request Manager says yes."""
        entry = self._entry(assignment)
        entry.finished_jobs = finished_jobs
        entry.claim_waiter = waiter

    def add_try(
        self,
        assignment: Assignment,
        report: TryReport,
        finished_jobs: int,
        waiter: asyncio.Future[None] | None = None,
    ) -> None:
        """Adds a finished try. The waiter gets its result when the try is committed."""
        entry = self._entry(assignment)
        entry.tries.append((report, waiter))
        entry.finished_jobs = finished_jobs
        self._add(1, _size(report))

    def add_end(
        self, assignment: Assignment, end: ChainEnd, finished_jobs: int, waiter: asyncio.Future[None]
    ) -> None:
        """Adds the end of a chain. The waiter gets its result when all of the chain is committed."""
        entry = self._entry(assignment)
        entry.finished_jobs = finished_jobs
        entry.end = end
        entry.end_waiter = waiter

    def forget(self, assignment: Assignment) -> None:
        """Drops what a chain has waiting here; nobody waits for it any more."""
        entry = self._waiting.pop(_key(assignment), None)
        if entry is not None:
            self._remove(len(entry.tries), _size_of(entry))
            self._check_empty()

    def take(self) -> Batch:
        """Takes out the next batch, within the limits of a message; it is empty when nothing waits."""
        taken: list[_ChainEntry] = []
        tries = size = 0
        for key in list(self._waiting):
            entry = self._waiting[key]
            part = _ChainEntry(entry.assignment, entry.claim_waiter, finished_jobs=entry.finished_jobs)
            entry.claim_waiter = None
            while entry.tries and tries < MAX_BATCH_TRIES and size < MAX_BATCH_BYTES:
                tried = entry.tries.popleft()
                part.tries.append(tried)
                tries += 1
                size += _size(tried[0])
            taken.append(part)
            if entry.tries:
                break
            part.end, part.end_waiter = entry.end, entry.end_waiter
            del self._waiting[key]
        self._remove(tries, size)
        if not self._waiting:
            self._filled.clear()
        self._on_their_way += len(taken)
        return Batch(taken)

    def put_back(self, batch: Batch) -> None:
        """Puts a batch that was not acknowledged back in front."""
        self._on_their_way -= len(batch.entries)
        later, self._waiting = self._waiting, {_key(entry.assignment): entry for entry in batch.entries}
        for key, entry in later.items():
            earlier = self._waiting.setdefault(key, entry)
            if earlier is not entry:
                earlier.tries.extend(entry.tries)
                earlier.finished_jobs = entry.finished_jobs
                earlier.end, earlier.end_waiter = entry.end, entry.end_waiter
        self._add(
            sum(len(entry.tries) for entry in batch.entries), sum(_size_of(entry) for entry in batch.entries)
        )
        if self._waiting:
            self._filled.set()

    def settle(self, batch: Batch, refused: Iterable[RefusedReport]) -> None:
        """Tells those who wait for a batch what became of it."""
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
        self._on_their_way -= len(batch.entries)
        self._check_empty()

    def nudge(self) -> None:
        """Ends a wait for something to report, though there may be nothing."""
        self._filled.set()

    async def wait_filled(self) -> None:
        """Returns when something waits, or after a nudge."""
        await self._filled.wait()

    async def wait_empty(self) -> None:
        """Returns when nothing waits and nothing is on its way."""
        await self._empty.wait()

    async def wait_room(self) -> None:
        """Returns when the box is not full."""
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
        if not self._waiting and self._on_their_way == 0:
            self._empty.set()

    def _remove(self, tries: int, size: int) -> None:
        self._count -= tries
        self._bytes -= size
        if not self.full:
            self._has_room.set()


def _key(assignment: Assignment) -> _Key:
    return assignment.request_id, assignment.epoch


def _size(report: TryReport) -> int:
    """Returns about how many bytes a try is, in memory as on the wire; exact counts would cost too much."""
    entry = report.entry
    data = report.job_data.ByteSize() if report.HasField("job_data") else 0
    return len(entry.stdout) + len(entry.stderr) + len(entry.error) + data + 200


def _size_of(entry: _ChainEntry) -> int:
    return sum(_size(report) for report, _ in entry.tries)


def _waiters(entry: _ChainEntry) -> list[asyncio.Future[None]]:
    waiters = [entry.claim_waiter, *(waiter for _, waiter in entry.tries), entry.end_waiter]
    return [waiter for waiter in waiters if waiter is not None]


def _message(entry: _ChainEntry) -> ChainReport:
    message = ChainReport(
        assignment=entry.assignment,
        tries=[report for report, _ in entry.tries],
        finished_jobs=entry.finished_jobs,
    )
    if isinstance(entry.end, ChainFinish):
        message.finish.CopyFrom(entry.end)
    elif entry.end is not None:
        message.suspended.CopyFrom(entry.end)
    return message
