"""Counts the tries and the jobs of a Job Runner."""

from __future__ import annotations

from collections.abc import Sequence

from spincycle_grpc.state import State
from spincycle_server.telemetry import catalogue
from spincycle_server.telemetry.instruments import (
    MAX_NAMES,
    OTHER,
    Counter,
    Counters,
    Histograms,
    Instruments,
)


class TryMetrics:
    """The tries and the jobs of a Job Runner, by type.

    Attributes:
        running: The number of tries that run, or wait for a thread.
    """

    def __init__(self) -> None:
        self.running = 0
        self._tries = Counters(catalogue.TRIES)
        self._seconds = Histograms(catalogue.TRY_SECONDS)
        self._jobs = Counters(catalogue.JOBS_ENDED)
        self._types: dict[str, _TypeMetrics] = {}
        self._others = _TypeMetrics(OTHER, self._tries, self._seconds, self._jobs)

    def try_ended(self, job_type: str, state: int, nanoseconds: int, *, is_made: bool) -> None:
        """Counts a try.

        Args:
            job_type: The type of its job.
            state: The number of its state.
            nanoseconds: How long it took.
            is_made: A factory has made a job of the type, so it is no stranger's text. It gets series of its
                own.
        """
        of_type = self._types.get(job_type)
        if of_type is None:
            of_type = self._know(job_type) if is_made else self._others
        of_type.tries[state].value += 1
        of_type.seconds.observe(nanoseconds / 1e9)

    def job_ended(self, job_type: str, state: int) -> None:
        """Counts a job after its last try. The state is its number."""
        self._types.get(job_type, self._others).jobs[state].value += 1

    def _know(self, job_type: str) -> _TypeMetrics:
        if len(self._types) >= MAX_NAMES:
            return self._others
        known = self._types[job_type] = _TypeMetrics(job_type, self._tries, self._seconds, self._jobs)
        return known

    @property
    def instruments(self) -> Sequence[Instruments]:
        """What a scrape reads."""
        return (self._tries, self._seconds, self._jobs)


class _TypeMetrics:
    """The instruments of one type of jobs. They are looked up once, because each try needs them."""

    __slots__ = ("jobs", "seconds", "tries")

    def __init__(self, label: str, tries: Counters, seconds: Histograms, jobs: Counters) -> None:
        self.tries = _ByState(label, tries)
        self.seconds = seconds.of(label)
        self.jobs = _ByState(label, jobs)


class _ByState(dict[int, Counter]):
    """The counters of one type of jobs, by the number of a state. One is made when it counts first."""

    __slots__ = ("_counters", "_label")

    def __init__(self, label: str, counters: Counters) -> None:
        super().__init__()
        self._label = label
        self._counters = counters

    def __missing__(self, state: int) -> Counter:
        counter = self[state] = self._counters.of(self._label, State(state).name)
        return counter
