"""Counts requests. The store says what a transaction has done, once it is committed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from spincycle_server.telemetry import catalogue
from spincycle_server.telemetry.instruments import (
    BoundedNames,
    Counter,
    Counters,
    Histogram,
    Histograms,
    Instruments,
)
from spincycle_server.telemetry.spans_of_requests import EndedRequest


class RequestCreated(NamedTuple):
    """A request was created."""

    request_type: str


class RequestStarted(NamedTuple):
    """A PENDING request got a runner, `waited` seconds after it was created."""

    request_type: str
    waited: float


class RequestEnded(NamedTuple):
    """A request ended, `seconds` after it was created. The outcome is the name of its state.

    `traced` is set if it belongs to a trace. `ended_at` is in microseconds since the Unix epoch.
    """

    request_type: str
    outcome: str
    seconds: float
    request_id: str
    ended_at: int
    traced: EndedRequest | None = None


class RequestMetrics:
    """The requests of a Request Manager, by type.

    Attributes:
        types: The types that have series of their own: those of the specs.
    """

    def __init__(self) -> None:
        self.types = BoundedNames()
        self._created = Counters(catalogue.REQUESTS_CREATED)
        self._ended = Counters(catalogue.REQUESTS_ENDED)
        self._seconds = Histograms(catalogue.REQUEST_SECONDS)
        self._waits = Histograms(catalogue.REQUEST_WAIT_SECONDS)
        self._by_label: dict[str, _TypeMetrics] = {}

    def count(self, events: Iterable[object]) -> None:
        """Counts what transactions have done. They have other events too."""
        for event in events:
            if isinstance(event, RequestCreated):
                self._of(event.request_type).created.value += 1
            elif isinstance(event, RequestStarted):
                self._of(event.request_type).waits.observe(event.waited)
            elif isinstance(event, RequestEnded):
                counter, seconds = self._of(event.request_type).ended[event.outcome]
                counter.value += 1
                seconds.observe(event.seconds)

    def _of(self, request_type: str) -> _TypeMetrics:
        label = self.types.label(request_type)
        found = self._by_label.get(label)
        if found is None:
            found = self._by_label[label] = _TypeMetrics(
                self._created.of(label), self._waits.of(label), _Ends(label, self._ended, self._seconds)
            )
        return found

    @property
    def instruments(self) -> Sequence[Instruments]:
        """What a scrape reads."""
        return (self._created, self._ended, self._seconds, self._waits)


class _Ends(dict[str, tuple[Counter, Histogram]]):
    """What counts the ends of requests of one type, by outcome. It is made when it counts first."""

    def __init__(self, label: str, ended: Counters, seconds: Histograms) -> None:
        super().__init__()
        self._label = label
        self._ended = ended
        self._seconds = seconds

    def __missing__(self, outcome: str) -> tuple[Counter, Histogram]:
        found = self[outcome] = (
            self._ended.of(self._label, outcome),
            self._seconds.of(self._label, outcome),
        )
        return found


@dataclass(slots=True)
class _TypeMetrics:
    """The instruments of one type of requests. They are looked up once, because each request needs them."""

    created: Counter
    waits: Histogram
    ended: _Ends
