"""Counts the tries and the jobs of a Job Runner."""

from __future__ import annotations

from collections.abc import Sequence

from spincycle_server.telemetry import catalogue
from spincycle_server.telemetry.instruments import BoundedNames, Counters, Histograms, Instruments


class TryMetrics:
    """The tries and the jobs of a Job Runner, by type.

    Attributes:
        running: The number of tries that run, or wait for a thread.
    """

    def __init__(self) -> None:
        self.running = 0
        self._types = BoundedNames()
        self._tries = Counters(catalogue.TRIES)
        self._seconds = Histograms(catalogue.TRY_SECONDS)
        self._jobs = Counters(catalogue.JOBS_ENDED)

    def know(self, job_type: str) -> None:
        """Gives a job type series of its own. A factory has made a job of it, so it is no stranger's text."""
        self._types.allow((job_type,))

    def try_ended(self, job_type: str, outcome: str, seconds: float) -> None:
        """Counts a try. The outcome is the name of its state."""
        label = self._types.label(job_type)
        self._tries.of(label, outcome).value += 1
        self._seconds.of(label).observe(seconds)

    def job_ended(self, job_type: str, outcome: str) -> None:
        """Counts a job after its last try. The outcome is the name of its state."""
        self._jobs.of(self._types.label(job_type), outcome).value += 1

    @property
    def instruments(self) -> Sequence[Instruments]:
        """What a scrape reads."""
        return (self._tries, self._seconds, self._jobs)
