"""What a process measures: the instruments and the gauges of its servers, as a scrape needs them.

A room keeps its instruments, and the app adds them here. So nothing is global, and a room does not know who
reads its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import TypeAlias

from spincycle_server.telemetry import catalogue
from spincycle_server.telemetry.health import Readiness
from spincycle_server.telemetry.instruments import Family, Instruments, Sample
from spincycle_server.telemetry.limits import LimitUse

Reading: TypeAlias = Mapping[tuple[str, ...], float]
"""The values of a gauge, by the values of its labels."""

Snapshot: TypeAlias = Sequence[tuple[Family, Sequence[Sample]]]
"""Gauges as they were at one moment."""


class ServerMetrics:
    """What one server, or the process as a whole, measures.

    Args:
        server: The name of the server, which becomes a label; "" for the process as a whole.
    """

    def __init__(self, server: str = "") -> None:
        self.server = server
        self._instruments: list[Instruments] = []
        self._readings: list[tuple[Family, Callable[[], Reading]]] = []
        self._limits: list[Callable[[], Iterable[LimitUse]]] = []

    def add(self, instruments: Iterable[Instruments]) -> None:
        """Adds instruments."""
        self._instruments += instruments

    def read(self, family: Family, reading: Callable[[], Reading]) -> None:
        """Adds a gauge or a counter that is read at each scrape, on the event loop."""
        self._readings.append((family, reading))

    def read_one(self, family: Family, reading: Callable[[], float]) -> None:
        """Adds a gauge or a counter without labels, as `read` does."""
        self._readings.append((family, lambda: {(): reading()}))

    def add_limits(self, *uses: Callable[[], Iterable[LimitUse]]) -> None:
        """Adds limits and their use, which are read at each scrape, on the event loop."""
        self._limits += uses

    @property
    def instruments(self) -> Sequence[Instruments]:
        """The instruments, which may be read in any thread."""
        return self._instruments

    def snapshot(self) -> Snapshot:
        """Reads all gauges and limits. Call it on the event loop, on which they change."""
        read: list[tuple[Family, Sequence[Sample]]] = [
            (family, [Sample(labels, value) for labels, value in reading().items()])
            for family, reading in self._readings
        ]
        uses = list(chain.from_iterable(limits() for limits in self._limits))
        read.append((catalogue.LIMIT, [Sample((use.limit.name,), use.allowed) for use in uses]))
        read.append((catalogue.LIMIT_USED, [Sample((use.limit.name,), use.used) for use in uses]))
        return read


class ServerTelemetry:
    """What one server shows of itself.

    Args:
        server: The name of the server.
        version: The version of the program.

    Attributes:
        metrics: What it measures.
        readiness: Whether it can take work.
    """

    def __init__(self, server: str, version: str) -> None:
        self.metrics = ServerMetrics(server)
        self.readiness = Readiness()
        self.metrics.read(catalogue.BUILD_INFO, lambda: {(version,): 1.0})
        self.metrics.read_one(catalogue.READY, lambda: float(not self.readiness.problem))
