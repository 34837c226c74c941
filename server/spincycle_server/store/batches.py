"""Committing a batch of writes in one transaction, exactly once."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import structlog
from sqlalchemy.engine import Connection, Engine

from spincycle_server.database.transaction import Transaction
from spincycle_server.database.troubles import Trouble, trouble_of
from spincycle_server.store.batch_retries import BatchRetries
from spincycle_server.store.limit_ledger import settle
from spincycle_server.store.write import Write
from spincycle_server.store.writer_row import WriterRow
from spincycle_server.telemetry.commits import CommitMetrics

logger = structlog.get_logger(__name__)


class BatchCommitter:
    """Commits the batches of one writer, one after the other.

    Args:
        engine: Connects to the database.
        patience: Seconds to wait for the database to come back.
        name: The name of the writer in the metrics.

    Attributes:
        commits: The number of batches committed so far.
        metrics: Counts the transactions.
        before_commit: Called with each transaction when all writes are applied, to add changes that follow
            from its events; None for no such changes.
    """

    def __init__(self, engine: Engine, *, patience: float, name: str) -> None:
        self.commits = 0
        self.metrics = CommitMetrics(name)
        self.before_commit: Callable[[Transaction], None] | None = None
        self._events: list[Any] = []
        self._engine = engine
        self._patience = patience
        self._row = WriterRow(engine)
        self._is_away = False

    def run(self, writes: Sequence[Write]) -> list[Any]:
        """Applies the writes exactly once, and retries if needed.

        Returns:
            The result of each write, as `Write.apply_all` returns it.

        Raises:
            Exception: The error of the last attempt. Nothing is committed. But if the database stayed away
                after a COMMIT was sent, the outcome is unknown.
        """
        started = time.monotonic()
        self._row.next_batch()
        retries = BatchRetries(len(writes), self._patience, is_away=self._is_away)
        sent: list[Any] | None = None  # The results of a transaction whose COMMIT was sent.
        events: list[Any] = []
        while True:
            try:
                if sent is not None and self._row.is_committed():
                    logger.info("a commit without an answer was successful", writes=len(writes))
                else:
                    sent = None
                    self._row.ensure()
                    with self._transaction() as transaction:
                        results = self.apply(transaction, writes)
                        sent, events = results, transaction.events
                        self.commit(transaction)
            except Exception as error:
                trouble = trouble_of(error)
                if not retries.allow(trouble, is_commit_sent=sent is not None):
                    self._is_away = trouble is Trouble.AWAY
                    self.metrics.failed(trouble.name)
                    if sent is not None:
                        self._row.abandon()
                    raise
                self.metrics.tried_again(trouble.name)
                logger.warning("transaction failed, trying again", trouble=trouble.name, writes=len(writes))
            else:
                self._is_away = False
                self.commits += 1
                self.metrics.committed(len(writes), time.monotonic() - started)
                self._events += events
                return sent
            retries.pause()

    def take_events(self) -> list[Any]:
        """Returns what the batches since the last call have done, for the metrics."""
        events, self._events = self._events, []
        return events

    def apply(self, transaction: Transaction, writes: Sequence[Write]) -> list[Any]:
        """Makes the changes in an open transaction, kind by kind, and returns the result of each write."""
        kinds: defaultdict[type[Write], list[int]] = defaultdict(list)
        for index, write in enumerate(writes):
            kinds[type(write)].append(index)
        results: list[Any] = [None] * len(writes)
        for kind in sorted(kinds, key=lambda kind: kind.order):
            indexes = kinds[kind]
            answers = kind.apply_all(transaction, [writes[index] for index in indexes])
            for index, answer in zip(indexes, answers, strict=True):
                results[index] = answer
        settle(transaction, time.time_ns() // 1000)
        if self.before_commit is not None:
            self.before_commit(transaction)
        self._row.store_number(transaction)
        return results

    def commit(self, transaction: Transaction) -> None:
        """Commits a transaction."""
        transaction.commit()
        self._row.committed()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Transaction]:
        with self._engine.connect() as connection, _rolled_back(connection):
            connection.begin()
            yield Transaction(connection, self._row.stamp)


@contextlib.contextmanager
def _rolled_back(connection: Connection) -> Iterator[None]:
    """Rolls back after an error, including a failed commit, and drops a broken connection."""
    try:
        yield
    except Exception as error:
        if trouble_of(error) is Trouble.AWAY or not _roll_back(connection):
            connection.invalidate()
        raise


def _roll_back(connection: Connection) -> bool:
    """Rolls back in the driver, because SQLAlchemy does nothing after a failed commit.

    Returns:
        Whether the rollback succeeded.
    """
    try:
        connection.connection.rollback()
    except Exception:
        return False
    return True
