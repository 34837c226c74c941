"""Counts the calls of methods."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from spincycle_grpc.errors import SpinCycleError
from spincycle_server.telemetry import catalogue
from spincycle_server.telemetry.instruments import Counter, Counters, Histograms, Instruments

_PACKAGE = "spincycle.v1."
_OK = "OK"
_CANCELLED = "CANCELLED"
_UNREADABLE = "INVALID_ARGUMENT"


class CallMetrics:
    """The calls of some methods, by code and transport, and how long they took."""

    def __init__(self) -> None:
        self.calls = Counters(catalogue.CALLS)
        self.seconds = Histograms(catalogue.CALL_SECONDS)

    def of(self, full_name: str) -> MethodCalls:
        """Returns what counts the calls of a method, by its full name."""
        return MethodCalls(self, full_name.removeprefix(_PACKAGE))

    @property
    def instruments(self) -> Sequence[Instruments]:
        """What a scrape reads."""
        return (self.calls, self.seconds)


class MethodCalls:
    """Counts the calls of one method. The instruments are looked up once, because each call needs them.

    Args:
        metrics: Keeps the instruments.
        method: The service and the method: "RequestManager.Create".
    """

    def __init__(self, metrics: CallMetrics, method: str) -> None:
        self._metrics = metrics
        self._method = method
        self._seconds = metrics.seconds.of(method)
        self._succeeded: dict[str, Counter] = {
            transport: metrics.calls.of(method, transport, _OK) for transport in ("grpc", "http")
        }

    def succeeded(self, transport: str, seconds: float) -> None:
        """Counts a call that returned a response."""
        self._succeeded[transport].value += 1
        self._seconds.observe(seconds)

    def failed(self, transport: str, seconds: float, error: BaseException) -> None:
        """Counts a call that raised an error."""
        self.stream_failed(transport, error)
        self._seconds.observe(seconds)

    def stream_ended(self, transport: str) -> None:
        """Counts a stream that ended by itself. Its duration says nothing: it may stay open for days."""
        self._succeeded[transport].value += 1

    def stream_failed(self, transport: str, error: BaseException) -> None:
        """Counts a stream that raised an error, or that its client left."""
        self._metrics.calls.of(self._method, transport, _code_of(error)).value += 1


def _code_of(error: BaseException) -> str:
    """Returns the name of the status. Any other exception than these is raised while a request is read."""
    if isinstance(error, SpinCycleError):
        return error.status.name
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return _CANCELLED
    return _UNREADABLE
