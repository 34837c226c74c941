"""Decides whether a batch whose transaction failed is retried."""

from __future__ import annotations

import time

from spincycle_grpc.backoff import Backoff
from spincycle_server.database.troubles import Trouble

MAX_CONFLICTS = 8
"""The maximum number of attempts of a batch that conflicts with other transactions."""

MAX_DUPLICATES = 3
"""The maximum number of attempts of a single write whose key exists already."""

_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.5


class BatchRetries:
    """Decides after each failed attempt of one batch whether to retry.

    Args:
        writes: The number of writes in the batch.
        patience: Seconds to wait for the database to come back.
        is_away: Whether the database was away when the last batch was given up. If so, this batch does not
            wait again.
    """

    def __init__(self, writes: int, patience: float, *, is_away: bool) -> None:
        self._patience = patience
        self._deadline = time.monotonic() + (0 if is_away else patience)
        self._writes = writes
        self._conflicts = 0
        self._is_extended = False
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)

    def allow(self, trouble: Trouble, *, is_commit_sent: bool) -> bool:
        """Counts a failed attempt, and returns whether to retry.

        Args:
            trouble: Why the attempt failed.
            is_commit_sent: Whether COMMIT was sent. The transaction may then be committed despite the error.
        """
        if trouble is Trouble.AWAY:
            if is_commit_sent and not self._is_extended:
                # However long the commit took, there must be time to look up whether it happened.
                self._is_extended = True
                self._deadline = max(self._deadline, time.monotonic() + self._patience)
        else:
            self._conflicts += 1
            if self._conflicts >= self._limit(trouble):
                return False
        return time.monotonic() <= self._deadline

    def _limit(self, trouble: Trouble) -> int:
        if trouble is Trouble.CONFLICT:
            return MAX_CONFLICTS
        # A larger batch is not retried: the writer then does its writes one by one.
        return MAX_DUPLICATES if trouble is Trouble.DUPLICATE and self._writes == 1 else 0

    def pause(self) -> None:
        """Sleeps before the next attempt."""
        time.sleep(self._backoff.next())
