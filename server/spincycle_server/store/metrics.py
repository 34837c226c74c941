"""What the Store measures: requests, transactions, reads and connections."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy.engine import Engine
from sqlalchemy.pool import QueuePool

from spincycle_server.database.read_pool import ReadPool
from spincycle_server.store.group_commit import MAX_WAITING, GroupCommitWriter
from spincycle_server.telemetry import catalogue
from spincycle_server.telemetry.limits import WAITING_CHANGES, WAITING_CREATIONS, LimitUse
from spincycle_server.telemetry.metrics import Reading, ServerMetrics
from spincycle_server.telemetry.requests import RequestMetrics


class StoreMetrics:
    """What the Store measures.

    Args:
        reader: Reads.
        writer: Makes all changes that `creator` does not make.
        creator: Creates requests. It may be the same as `writer`.
        engines: The engines for writes and for reads.

    Attributes:
        requests: Counts requests.
    """

    def __init__(
        self,
        reader: ReadPool,
        writer: GroupCommitWriter,
        creator: GroupCommitWriter,
        engines: tuple[Engine, Engine],
    ) -> None:
        self.requests = RequestMetrics()
        self._reader = reader
        self._waiting = [(writer, WAITING_CHANGES)]
        if creator is not writer:
            self._waiting.append((creator, WAITING_CREATIONS))
        for one, _ in self._waiting:
            one.on_events = self.requests.count
        self._pools = {"writes": engines[0].pool, "reads": engines[1].pool}

    def add_to(self, metrics: ServerMetrics) -> None:
        """Adds everything to the metrics of a server."""
        metrics.add(self.requests.instruments)
        metrics.add([self._reader.seconds])
        for writer, _ in self._waiting:
            metrics.add(writer.batches.metrics.instruments)
        metrics.add_limits(self._reader.limits, self._waiting_changes)
        metrics.read(catalogue.DATABASE_CONNECTIONS, self._connections)

    def _waiting_changes(self) -> Iterable[LimitUse]:
        return [LimitUse(limit, MAX_WAITING, writer.waiting) for writer, limit in self._waiting]

    def _connections(self) -> Reading:
        states: dict[tuple[str, ...], float] = {}
        kept = sum(writer.batches.has_idle_connection for writer, _ in self._waiting)
        for name, pool in self._pools.items():
            if isinstance(pool, QueuePool):
                idle = kept if name == "writes" else 0
                states[name, "in_use"] = max(0, pool.checkedout() - idle)
                states[name, "idle"] = pool.checkedin() + idle
        return states
