"""Numbers are gathered from all workers, within a limit, and counts of ended workers are kept."""

from __future__ import annotations

from typing import Any

import orjson

from spincycle_server.workers.frames import Kind
from spincycle_server.workers.gathering import GATHER_TIMEOUT, KEPT, Gathering


class Supervisor:
    """Has a `Gathering`, whose messages it keeps, and a clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sent: list[tuple[int, Kind, bytes]] = []
        self.gathering = Gathering(
            lambda worker, kind, data: self.sent.append((worker, kind, data)), _add, lambda: self.now
        )

    def ask(self, asker: int, workers: int = 3) -> list[int]:
        """Lets a worker ask. Returns the workers that are asked for their numbers."""
        del self.sent[:]
        self.gathering.ask(asker, range(1, workers + 1))
        return [worker for worker, kind, _ in self.sent if kind is Kind.MEASURE]

    def answer(self, worker: int, number: int, late: bytes = b"") -> None:
        """Lets a worker answer the newest question, or an earlier one."""
        question = next((data for to, kind, data in self.sent if to == worker and kind is Kind.MEASURE), late)
        self.gathering.measured(worker, question + orjson.dumps(number))

    def gathered(self) -> dict[int, Any]:
        """Returns what the askers got."""
        return {worker: orjson.loads(data) for worker, kind, data in self.sent if kind is Kind.GATHERED}


def _add(before: bytes | None, newest: bytes) -> bytes:
    return orjson.dumps((orjson.loads(before) if before else 0) + orjson.loads(newest))


def test_a_worker_gets_the_numbers_of_the_others() -> None:
    there = Supervisor()
    assert there.ask(2) == [1, 2, 3]
    for worker in (3, 2, 1):
        assert not there.gathered()
        there.answer(worker, 10 * worker)
    assert there.gathered() == {2: {"numbers": [30, 10], "counts": [], "silent": 0, "replaced": 0}}


def test_workers_that_ask_at_the_same_time_or_soon_after_share_the_answers() -> None:
    there = Supervisor()
    there.ask(1)
    there.gathering.ask(2, [1, 2, 3])
    for worker in (1, 2, 3):
        there.answer(worker, worker)
    assert {worker: found["numbers"] for worker, found in there.gathered().items()} == {1: [2, 3], 2: [1, 3]}
    there.now += KEPT / 2
    assert there.ask(3) == []
    assert there.gathered()[3]["numbers"] == [1, 2]
    there.now += KEPT
    assert there.ask(3) == [1, 2, 3]


def test_a_silent_worker_is_left_out_after_a_second_and_keeps_its_counts() -> None:
    there = Supervisor()
    there.ask(1)
    late = there.sent[1][2]
    for worker in (1, 2, 3):
        there.answer(worker, worker)
    there.now += 10
    there.ask(1)
    there.answer(1, 11)
    there.answer(3, 13)
    there.gathering.expire()
    assert not there.gathered()
    there.now += GATHER_TIMEOUT
    there.gathering.expire()
    assert there.gathered() == {1: {"numbers": [13], "counts": [2], "silent": 1, "replaced": 0}}
    del there.sent[:]
    there.answer(2, 22, late)  # Its answer to an earlier question is newer than what is known.
    there.now += 10
    there.ask(1)
    there.now += GATHER_TIMEOUT
    there.gathering.expire()
    assert there.gathered()[1] == {"numbers": [], "counts": [22, 13], "silent": 2, "replaced": 0}


def test_counts_of_ended_workers_are_added_up() -> None:
    there = Supervisor()
    there.ask(1)
    for worker in (1, 2, 3):
        there.answer(worker, worker)
    for worker in (2, 3):
        there.gathering.ended(worker)
        there.gathering.replaced()
    there.gathering.ended(3)  # A process that has not answered yet has counted nothing that is known.
    there.now += 10
    assert there.ask(1) == [1, 2, 3]
    for worker in (1, 2, 3):
        there.answer(worker, 0)
    assert there.gathered() == {1: {"numbers": [0, 0], "counts": [5], "silent": 0, "replaced": 2}}


def test_a_worker_that_starts_alone_is_answered_at_once() -> None:
    there = Supervisor()
    assert there.ask(1, workers=0) == []
    assert there.gathered() == {1: {"numbers": [], "counts": [], "silent": 0, "replaced": 0}}


def test_nobody_waits_for_a_worker_that_ends() -> None:
    there = Supervisor()
    there.ask(1)
    there.answer(1, 1)
    there.answer(3, 3)
    there.gathering.ended(2)
    assert there.gathered() == {1: {"numbers": [3], "counts": [], "silent": 0, "replaced": 0}}
    assert there.gathering.deadline is None
