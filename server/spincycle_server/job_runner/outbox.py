"""The reports of this runner's chains that no Request Manager has committed yet.

The reports of a chain stay in order. The reporter takes a batch and sends it. Then it settles the batch
(committed or refused), or puts it back in front of newer reports.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from spincycle_grpc.v1.approval_pb2 import OpenedApproval
from spincycle_grpc.v1.job_pb2 import SuspendedJobChain
from spincycle_grpc.v1.limit_pb2 import SequenceLimitChange
from spincycle_grpc.v1.runner_reports_pb2 import (
    Assignment,
    ChainFinish,
    ChainReport,
    RefusedReport,
    ReportRequest,
    StartedTry,
    TryReport,
)
from spincycle_server.telemetry.limits import WAITING_REPORTS, WAITING_TRIES, LimitUse

ChainEnd: TypeAlias = ChainFinish | SuspendedJobChain
"""The end of a chain on this runner: a final state, or the suspended chain."""

Finished: TypeAlias = tuple[int, int]
"""The progress of a chain: how many jobs are COMPLETE, and how many of them do more than to connect others.

A plain tuple, because each report of a try makes one.
"""

_Key: TypeAlias = tuple[str, int]

_QueuedTry: TypeAlias = tuple[TryReport, "asyncio.Future[None] | None", int]
"""A finished try, its waiter, and its approximate size in bytes."""

_TRY_SIZE = 200
"""Bytes of a try without its data and texts, rounded up. An exact count would cost too much time."""

MAX_BATCH_TRIES = 10_000
"""The maximum number of tries in one message."""

MAX_LIMIT_CHANGES = 1000
"""The maximum number of changes of limits of one chain in one message."""

MAX_BATCH_BYTES = 8 * 1024 * 1024
"""The maximum size in bytes of the tries and the suspended chains in one message, unless one is larger."""


class ReportRefusedError(Exception):
    """A Request Manager refused a report of a chain. `reason` is the RefusalReason."""

    def __init__(self, reason: int) -> None:
        super().__init__(f"report refused, reason {reason}")
        self.reason = reason


@dataclass(slots=True)
class _ChainEntry:
    """The reports of one chain: finished tries, and perhaps the end of the chain.

    The claim waiter waits for the confirmation that the assignment is still valid. The size is that of the
    tries.
    """

    assignment: Assignment
    claim_waiter: asyncio.Future[None] | None = None
    started: list[tuple[StartedTry, asyncio.Future[None]]] = field(default_factory=list)
    opened: deque[tuple[OpenedApproval, asyncio.Future[None]]] = field(default_factory=deque)
    limit_changes: deque[tuple[SequenceLimitChange, asyncio.Future[None]]] = field(default_factory=deque)
    is_cleared: bool = False
    tries: deque[_QueuedTry] = field(default_factory=deque)
    size: int = 0
    finished: Finished = (0, 0)
    end: ChainEnd | None = None
    end_waiter: asyncio.Future[None] | None = None

    @property
    def is_small(self) -> bool:
        """Whether the tries are all of it that may be large."""
        return not (self.opened or self.limit_changes or isinstance(self.end, SuspendedJobChain))

    @property
    def end_size(self) -> int:
        """The bytes of the end, if it is a suspended chain. Other ends are small."""
        return self.end.ByteSize() if isinstance(self.end, SuspendedJobChain) else 0


@dataclass(slots=True)
class Batch:
    """Reports in flight to a Request Manager."""

    entries: list[_ChainEntry]

    @property
    def ends(self) -> int:
        """How many chains end in it."""
        return sum(entry.end is not None for entry in self.entries)

    def message(self) -> ReportRequest:
        """Returns the message with the reports, one per chain."""
        message = ReportRequest()
        for entry in self.entries:
            _fill(message.chains.add(), entry)
        return message


class Outbox:
    """The queue of reports.

    Args:
        max_tries: The outbox is full with this many queued tries.
        max_bytes: The outbox is also full with this many bytes of queued tries.

    Attributes:
        full: Whether chains must not start more jobs until there is room.
    """

    def __init__(self, *, max_tries: int = 100_000, max_bytes: int = 256 * 1024 * 1024) -> None:
        self._max_tries = max_tries
        self._max_bytes = max_bytes
        self._waiting: dict[_Key, _ChainEntry] = {}
        self._count = 0
        self._bytes = 0
        self.full = False
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

    def add_claim(self, assignment: Assignment, finished: Finished, waiter: asyncio.Future[None]) -> None:
        """Asks whether an assignment is still valid. The waiter is done when that is confirmed."""
        entry = self._entry(assignment)
        entry.finished = max(entry.finished, finished)
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

    def add_opened(
        self,
        assignment: Assignment,
        opened: OpenedApproval,
        finished: Finished,
        waiter: asyncio.Future[None],
    ) -> None:
        """Adds a wait for an approval that has begun. The waiter is done when that is committed."""
        entry = self._entry(assignment)
        entry.finished = max(entry.finished, finished)
        entry.opened.append((opened, waiter))

    def add_limit_change(
        self,
        assignment: Assignment,
        change: SequenceLimitChange,
        finished: Finished,
        waiter: asyncio.Future[None],
    ) -> None:
        """Adds what a sequence does with its keys. The waiter is done when that is committed."""
        entry = self._entry(assignment)
        entry.finished = max(entry.finished, finished)
        entry.limit_changes.append((change, waiter))

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
        logged = report.entry
        size = _TRY_SIZE + (report.job_data.ByteSize() if report.HasField("job_data") else 0)
        for text in (logged.stdout, logged.stderr, logged.error):
            if text:
                size += len(text) if text.isascii() else 4 * len(text)
        entry.tries.append((report, waiter, size))
        entry.size += size
        entry.finished = finished
        self._add(1, size)

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
            self._add(-len(entry.tries), -entry.size)
            self._check_empty()

    def take(self) -> Batch:
        """Takes the next batch, within the limits of a message. It is empty if nothing is queued."""
        taken: list[_ChainEntry] = []
        tries = tried_bytes = size = ends = 0
        for key in list(self._waiting):
            entry = self._waiting[key]
            if (
                entry.is_small
                and tries + len(entry.tries) <= MAX_BATCH_TRIES
                and size + ends + entry.size <= MAX_BATCH_BYTES
            ):
                tries += len(entry.tries)
                tried_bytes += entry.size
                size += entry.size
                taken.append(entry)
                del self._waiting[key]
                continue
            part = _ChainEntry(entry.assignment, entry.claim_waiter, finished=entry.finished)
            entry.claim_waiter = None
            part.started, entry.started = entry.started, []
            while entry.tries and tries < MAX_BATCH_TRIES and size + ends < MAX_BATCH_BYTES:
                tried = entry.tries.popleft()
                part.tries.append(tried)
                part.size += tried[2]
                entry.size -= tried[2]
                tries += 1
                tried_bytes += tried[2]
                size += tried[2]
            while entry.opened and not entry.tries and size + ends < MAX_BATCH_BYTES:
                opened = entry.opened.popleft()
                part.opened.append(opened)
                size += opened[0].ByteSize()
            while _has_room_for_limits(entry, part) and size + ends < MAX_BATCH_BYTES:
                change = entry.limit_changes.popleft()
                part.limit_changes.append(change)
                size += change[0].ByteSize()
            is_rest = bool(entry.tries or entry.opened or entry.limit_changes)
            end_size = 0 if is_rest else entry.end_size
            has_own = bool(part.tries or part.opened or part.limit_changes)
            is_full = (has_own or bool(taken)) and size + ends + end_size > MAX_BATCH_BYTES
            if is_rest or (end_size and is_full):
                if has_own or part.started or part.claim_waiter is not None:
                    taken.append(part)
                break
            ends += end_size
            part.is_cleared = entry.is_cleared
            part.end, part.end_waiter = entry.end, entry.end_waiter
            taken.append(part)
            del self._waiting[key]
        self._add(-tries, -tried_bytes)
        if not self._waiting:
            self._filled.clear()
        self._in_flight += len(taken)
        return Batch(taken)

    def put_back(self, batch: Batch) -> None:
        """Puts a batch that was not acknowledged back in front of newer reports."""
        self._in_flight -= len(batch.entries)
        # Before they are joined with newer tries, which are counted already.
        self._add(
            sum(len(entry.tries) for entry in batch.entries), sum(entry.size for entry in batch.entries)
        )
        later, self._waiting = self._waiting, {_key(entry.assignment): entry for entry in batch.entries}
        for key, entry in later.items():
            earlier = self._waiting.setdefault(key, entry)
            if earlier is not entry:
                earlier.started.extend(entry.started)
                earlier.opened.extend(entry.opened)
                earlier.limit_changes.extend(entry.limit_changes)
                earlier.is_cleared |= entry.is_cleared
                earlier.tries.extend(entry.tries)
                earlier.size += entry.size
                earlier.finished = entry.finished
                earlier.end, earlier.end_waiter = entry.end, entry.end_waiter
        if self._waiting:
            self._filled.set()

    def settle(self, batch: Batch, refused: Iterable[RefusedReport]) -> None:
        """Gives the waiters of an acknowledged batch their results, or ReportRefusedError."""
        reasons = {_key(refusal.assignment): refusal.reason for refusal in refused}
        for entry in batch.entries:
            reason = reasons.get(_key(entry.assignment)) if reasons else None
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
        key = assignment.request_id, assignment.epoch
        entry = self._waiting.get(key)
        if entry is None:
            entry = self._waiting[key] = _ChainEntry(assignment)
            self._filled.set()
            self._empty.clear()
        return entry

    def _add(self, tries: int, size: int) -> None:
        """Counts queued tries and their bytes. Negative numbers are those of tries that leave the queue."""
        self._count += tries
        self._bytes += size
        is_full = self._count >= self._max_tries or self._bytes >= self._max_bytes
        if is_full is not self.full:
            self.full = is_full
            if is_full:
                self._has_room.clear()
            else:
                self._has_room.set()

    def _check_empty(self) -> None:
        if not self._waiting and self._in_flight == 0:
            self._empty.set()


def _has_room_for_limits(entry: _ChainEntry, part: _ChainEntry) -> bool:
    """Whether the next change of limits of an entry may go into a part: after all earlier reports."""
    if not entry.limit_changes or entry.tries or entry.opened:
        return False
    return len(part.limit_changes) < MAX_LIMIT_CHANGES


def _key(assignment: Assignment) -> _Key:
    return assignment.request_id, assignment.epoch


def _waiters(entry: _ChainEntry) -> list[asyncio.Future[None]]:
    waiters = [] if entry.claim_waiter is None else [entry.claim_waiter]
    for queue in (entry.started, entry.opened, entry.limit_changes):
        if queue:
            waiters += [waiter for _, waiter in queue]
    waiters += [waiter for _, waiter, _ in entry.tries if waiter is not None]
    if entry.end_waiter is not None:
        waiters.append(entry.end_waiter)
    return waiters


def _fill(report: ChainReport, entry: _ChainEntry) -> None:
    """Fills the report of a chain in place, because protobuf copies a message that is put into another."""
    report.assignment.CopyFrom(entry.assignment)
    report.tries.extend([tried for tried, _, _ in entry.tries])
    report.finished_jobs, report.finished_tasks = entry.finished
    if entry.started:
        report.started.extend([started for started, _ in entry.started])
    if entry.opened:
        report.opened.extend([opened for opened, _ in entry.opened])
    if entry.limit_changes:
        report.limit_changes.extend([change for change, _ in entry.limit_changes])
    if entry.is_cleared:
        report.cleared = True
    if isinstance(entry.end, ChainFinish):
        report.finish.CopyFrom(entry.end)
    elif entry.end is not None:
        report.suspended.CopyFrom(entry.end)
