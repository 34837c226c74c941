"""Counts the transactions of a writer."""

from __future__ import annotations

from collections.abc import Sequence

from spincycle_server.telemetry import catalogue
from spincycle_server.telemetry.instruments import Counters, Histograms, Instruments


class CommitMetrics:
    """The transactions of one writer. Only the thread of the writer counts.

    Args:
        writer: The name of the writer.
    """

    def __init__(self, writer: str) -> None:
        self._writer = writer
        self._changes = Histograms(catalogue.COMMIT_CHANGES)
        self._seconds = Histograms(catalogue.COMMIT_SECONDS)
        self._retries = Counters(catalogue.COMMIT_RETRIES)
        self._failures = Counters(catalogue.COMMIT_FAILURES)
        self._changes_of_commits = self._changes.of(writer)
        self._seconds_of_commits = self._seconds.of(writer)

    def committed(self, changes: int, seconds: float) -> None:
        """Counts a transaction that was committed."""
        self._changes_of_commits.observe(changes)
        self._seconds_of_commits.observe(seconds)

    def tried_again(self, trouble: str) -> None:
        """Counts a transaction that is tried again. The trouble is the name of a `Trouble`."""
        self._retries.of(self._writer, trouble).value += 1

    def failed(self, trouble: str) -> None:
        """Counts a transaction that was given up."""
        self._failures.of(self._writer, trouble).value += 1

    @property
    def instruments(self) -> Sequence[Instruments]:
        """What a scrape reads."""
        return (self._changes, self._seconds, self._retries, self._failures)
