"""The queue of spans on their way to the collector, and the thread that sends them.

A server never waits for the collector. If it is away, slow or refuses spans, they are dropped, counted, and
reported in the log.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import structlog

from spincycle_server.telemetry.spans import Span

logger = structlog.get_logger(__name__)

MAX_SPANS = 20_000
"""The maximum number of spans that wait to be sent. Further ones are dropped."""

MAX_BATCH = 512
"""The maximum number of spans in one message to the collector."""

INTERVAL = 1.0
"""The longest time in seconds that a span waits until it is sent."""

REPORT_INTERVAL = 60.0
"""Seconds between two reports of dropped spans in the log."""

STOP_TIMEOUT = 3.0
"""Seconds that a server which stops waits until its last spans are sent."""


class SpanQueue:
    """Sends spans in batches, in a thread of its own.

    The batch processor of OpenTelemetry's SDK is not used: it does not say how many spans it drops, and it
    starts a thread in every process that a job forks.

    Args:
        send: Sends spans. Returns why they were lost; "" if they were not. Only the thread calls it.
        limit: The maximum number of spans that wait.
        interval: The longest time in seconds that a span waits until it is sent.
        report_interval: Seconds between two reports of dropped spans.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Span]], str],
        *,
        limit: int = MAX_SPANS,
        interval: float = INTERVAL,
        report_interval: float = REPORT_INTERVAL,
    ) -> None:
        self._send = send
        self._limit = limit
        self._interval = interval
        self._report_interval = report_interval
        self._waiting: deque[Span] = deque()
        self._in_flight = 0
        self._has_given_up = False
        self._dropped = 0
        self._reason = ""
        self._reported_at = -report_interval
        self._wake = threading.Event()
        self._is_closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def add(self, span: Span) -> None:
        """Queues a span, or drops it if too many wait. Any thread may call it. It never blocks."""
        if len(self._waiting) >= self._limit:
            self._drop(1, f"{self._limit} spans waited to be sent")
            return
        self._waiting.append(span)
        if len(self._waiting) >= MAX_BATCH and not self._wake.is_set():
            self._wake.set()

    def close(self, timeout: float = STOP_TIMEOUT) -> None:
        """Sends what waits, for at most `timeout` seconds. It blocks until then."""
        self._is_closed = True
        self._wake.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._give_up()
        self._report()

    def _give_up(self) -> None:
        """Counts what waits, and the batch that the thread is sending, as dropped."""
        with self._lock:
            self._has_given_up = True
            lost = self._in_flight + len(self._waiting)
            self._waiting.clear()
        self._drop(lost, "the server stopped before the collector answered")

    def _run(self) -> None:
        while not self._is_closed:
            self._wake.wait(self._interval)
            self._wake.clear()
            self._send_waiting()
            self._report()
        self._send_waiting()

    def _send_waiting(self) -> None:
        while batch := self._next_batch():
            try:
                reason = self._send(batch)
            except Exception as error:  # Without the thread, all further spans would be lost.
                reason = type(error).__name__
            with self._lock:
                self._in_flight = 0
                if self._has_given_up:  # It has counted this batch.
                    return
            if reason:
                self._drop(len(batch), reason)
                self._report()

    def _next_batch(self) -> list[Span]:
        with self._lock:
            size = min(len(self._waiting), MAX_BATCH)
            self._in_flight = size
            return [self._waiting.popleft() for _ in range(size)]

    def _drop(self, spans: int, reason: str) -> None:
        with self._lock:
            self._dropped += spans
            self._reason = reason

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._reported_at < self._report_interval and not self._is_closed:
            return
        with self._lock:
            dropped, self._dropped = self._dropped, 0
            reason = self._reason
        if dropped:
            self._reported_at = now
            logger.warning("spans dropped", spans=dropped, reason=reason)
