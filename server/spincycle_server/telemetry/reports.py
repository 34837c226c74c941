"""Counts the messages of a Job Runner to Request Managers, which also renew its lease."""

from __future__ import annotations

from collections.abc import Sequence

from spincycle_server.telemetry import catalogue
from spincycle_server.telemetry.instruments import Counters, Histograms, Instruments


class ReportMetrics:
    """The messages and the leases of one Job Runner."""

    def __init__(self) -> None:
        self._messages = Histograms(catalogue.REPORT_SECONDS)
        self._interruptions = Counters(catalogue.REPORT_INTERRUPTIONS)
        self._expirations = Counters(catalogue.LEASE_EXPIRATIONS)
        self._seconds = self._messages.of()
        self._interrupted = self._interruptions.of()
        self._expired = self._expirations.of()

    def acknowledged(self, seconds: float) -> None:
        """Counts a message that a Request Manager has acknowledged."""
        self._seconds.observe(seconds)

    def interrupted(self) -> None:
        """Counts a stream that broke, or that could not be opened."""
        self._interrupted.value += 1

    def lease_expired(self) -> None:
        """Counts a lease that expired."""
        self._expired.value += 1

    @property
    def instruments(self) -> Sequence[Instruments]:
        """What a scrape reads."""
        return (self._messages, self._interruptions, self._expirations)
