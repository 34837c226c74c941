"""Counts requests. The store says what a transaction has done, once it is committed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from spincycle_server.telemetry import catalogue
from spincycle_server.telemetry.instruments import BoundedNames, Counters, Histograms, Instruments
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

    `traced` is set if it belongs to a trace.
    """

    request_type: str
    outcome: str
    seconds: float
    traced: EndedRequest | None = None


RequestEvent: TypeAlias = RequestCreated | RequestStarted | RequestEnded


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

    def count(self, events: Iterable[RequestEvent]) -> None:
        """Counts what transactions have done."""
        for event in events:
            label = self.types.label(event.request_type)
            if isinstance(event, RequestCreated):
                self._created.of(label).value += 1
            elif isinstance(event, RequestStarted):
                self._waits.of(label).observe(event.waited)
            else:
                self._ended.of(label, event.outcome).value += 1
                self._seconds.of(label, event.outcome).observe(event.seconds)

    @property
    def instruments(self) -> Sequence[Instruments]:
        """What a scrape reads."""
        return (self._created, self._ended, self._seconds, self._waits)
