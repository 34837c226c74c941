"""The numbers of all workers, gathered for whichever worker is asked for the metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

import orjson

from spincycle_server.workers.frames import Kind

GATHER_TIMEOUT = 1.0
"""Seconds that workers have to send their numbers. A worker that takes longer is left out."""

KEPT = 0.2
"""Seconds for which gathered numbers answer further workers that ask."""


class Gathering:
    """Asks the workers, and keeps the last numbers of each.

    Counters must not fall when a worker ends or does not answer: Prometheus would take that for a restart.
    So the last counts of ended workers are added up, and those of silent workers are used again.

    Args:
        send: Sends a message to a worker.
        add: Adds up two sets of numbers, of which only counts are kept. The first may be None.
        clock: Returns the time in seconds. It never goes back.
    """

    def __init__(
        self,
        send: Callable[[int, Kind, bytes], None],
        add: Callable[[bytes | None, bytes], bytes],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._add = add
        self._clock = clock
        self._last: dict[int, bytes] = {}
        self._ended: bytes | None = None
        self._replaced = 0
        self._round = 0
        self._awaited: set[int] = set()
        self._answered: set[int] = set()
        self._askers: set[int] = set()
        self._deadline: float | None = None
        self._finished_at = -KEPT

    @property
    def deadline(self) -> float | None:
        """When to call `expire`; None if nothing is gathered."""
        return self._deadline

    def ask(self, asker: int, workers: Collection[int]) -> None:
        """Gathers the numbers for a worker. Workers that ask at the same time share the answers.

        Args:
            asker: The number of the worker that asks.
            workers: The numbers of the workers that serve.
        """
        self._askers.add(asker)
        if self._deadline is not None:
            return
        if self._clock() - self._finished_at < KEPT:
            self._finish()
            return
        self._round += 1
        self._awaited = set(workers)
        self._answered = set()
        self._deadline = self._clock() + GATHER_TIMEOUT
        for worker in workers:
            self._send(worker, Kind.MEASURE, self._round.to_bytes(8, "big"))
        if not workers:  # They start, and the port of `server.metrics` is open already.
            self._finish()

    def measured(self, worker: int, data: bytes) -> None:
        """Takes the numbers of a worker: the number of the round in eight bytes, and JSON."""
        self._last[worker] = data[8:]
        if self._deadline is None or int.from_bytes(data[:8], "big") != self._round:
            return  # It answers too late, but its counts are newer than the last ones.
        self._awaited.discard(worker)
        self._answered.add(worker)
        if not self._awaited:
            self._finish()

    def ended(self, worker: int) -> None:
        """Adds the last counts of a worker that has ended to those of earlier ones."""
        last = self._last.pop(worker, None)
        if last is not None:
            self._ended = self._add(self._ended, last)
        self._answered.discard(worker)
        self._askers.discard(worker)
        self._awaited.discard(worker)
        if self._deadline is not None and not self._awaited:
            self._finish()

    def replaced(self) -> None:
        """Counts a worker that is started because an earlier one has ended."""
        self._replaced += 1

    def expire(self) -> None:
        """Answers without the workers that are silent, if their time is over."""
        if self._deadline is not None and self._clock() >= self._deadline:
            self._finish()

    def _finish(self) -> None:
        if self._deadline is not None:
            self._finished_at = self._clock()
        self._deadline = None
        askers, self._askers = self._askers, set()
        for asker in askers:
            self._send(asker, Kind.GATHERED, self._answer_for(asker))

    def _answer_for(self, asker: int) -> bytes:
        others = [worker for worker in self._last if worker != asker]
        counts_only = [self._last[worker] for worker in others if worker not in self._answered]
        if self._ended is not None:
            counts_only.append(self._ended)
        answer: dict[str, Any] = {
            "numbers": [orjson.Fragment(self._last[one]) for one in others if one in self._answered],
            "counts": [orjson.Fragment(counts) for counts in counts_only],
            "silent": len(self._awaited - {asker}),
            "replaced": self._replaced,
        }
        return orjson.dumps(answer)
