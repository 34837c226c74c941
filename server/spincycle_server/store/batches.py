"""Committing a batch of writes in one transaction, exactly once."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
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

    It keeps its connection from batch to batch, because taking it from the pool each time is a fifth of the
    work of a small batch. After an error, it gives the connection back. So if the server has closed the
    connection, the next batch is retried with another one.

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
        self._connection: Connection | None = None

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
        kept: dict[type[Any], Any] = {}
        while True:
            try:
                if sent is not None and self._row.is_committed():
                    logger.info("a commit without an answer was successful", writes=len(writes))
                else:
                    sent = None
                    self._ensure_row()
                    transaction = self._begin(kept)
                    results = self.apply(transaction, writes)
                    sent, events = results, transaction.events
                    self.commit(transaction)
            except Exception as error:
                trouble = trouble_of(error)
                self._roll_back(trouble)
                if not retries.allow(trouble, is_commit_sent=sent is not None):
                    self._is_away = trouble is Trouble.AWAY
                    self.metrics.failed(trouble.name)
                    if sent is not None:
                        self._row.abandon()
                    raise
                self.metrics.tried_again(trouble.name)
                # Conflicts of transactions are usual with several Request Managers.
                log = logger.info if trouble is Trouble.CONFLICT else logger.warning
                log("transaction failed, trying again", trouble=trouble.name, writes=len(writes))
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

    @property
    def has_idle_connection(self) -> bool:
        """Whether it keeps a connection on which no transaction is open."""
        connection = self._connection
        return connection is not None and not connection.in_transaction()

    def close(self) -> None:
        """Gives back the connection. The next batch takes one again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _ensure_row(self) -> None:
        if not self._row.is_fresh:
            self.close()  # The row takes a connection of its own, and there is one for each writer.
            self._row.ensure()

    def _begin(self, kept: dict[type[Any], Any]) -> Transaction:
        if self._connection is None:
            self._connection = self._engine.connect()
        self._connection.begin()
        return Transaction(self._connection, self._row.stamp, kept)

    def _roll_back(self, trouble: Trouble) -> None:
        """Rolls back after an error, including a failed commit, and drops a broken connection."""
        connection = self._connection
        if connection is not None:
            if trouble is Trouble.AWAY or not _is_rolled_back(connection):
                connection.invalidate()
            self.close()


def _is_rolled_back(connection: Connection) -> bool:
    """Rolls back in the driver, because SQLAlchemy does nothing after a failed commit.

    Returns:
        Whether the rollback succeeded.
    """
    try:
        connection.connection.rollback()
    except Exception:
        return False
    return True
