"""The answer to a scrape: all numbers of some servers as text for Prometheus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from spincycle_server.large_work import short_turns
from spincycle_server.telemetry import catalogue
from spincycle_server.telemetry.catalogue import CATALOGUE
from spincycle_server.telemetry.instruments import Distribution, Family, Kind, Value
from spincycle_server.telemetry.metrics import ServerMetrics, Snapshot
from spincycle_server.telemetry.numbers import (
    Numbers,
    decoded,
    encoded,
    label_names,
    library_numbers,
    merged,
    numbers_of,
)

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""The format of the text. Every version of Prometheus knows it."""

KEPT = 0.2
"""Seconds for which a text answers further scrapes, so that scrapers cannot keep a processor busy."""


class OtherWorkers(NamedTuple):
    """The numbers of the other workers of this server, as the JSON of `numbers.encoded`, parsed.

    Attributes:
        numbers: The numbers of those that have answered.
        counts: Earlier numbers of those that are silent or have ended. Only their counts are used.
        silent: How many have not answered.
        replaced: How many have ended and were replaced.
    """

    numbers: Sequence[object]
    counts: Sequence[object]
    silent: int
    replaced: int


AskOthers: TypeAlias = Callable[[], Awaitable[OtherWorkers]]


class Exposition:
    """Builds the text in a thread of its own: a text with hundreds of series takes milliseconds.

    Args:
        sources: What to show. Servers may be added later.
        ask_others: Returns the numbers of the other workers, or raises UnavailableError if they are unknown.
            None if this process is the only one of its server.
    """

    def __init__(self, sources: Sequence[ServerMetrics], ask_others: AskOthers | None = None) -> None:
        self._sources = sources
        self._ask_others = ask_others
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._process)
        GCCollector(registry=self._process)
        self._newest: asyncio.Future[bytes] | None = None
        self._built_at = 0.0

    async def text(self) -> bytes:
        """Returns the text. Scrapes at the same time share one.

        Raises:
            UnavailableError: The other workers are unknown. A text without them would look as if counters had
                begun again.
        """
        newest = self._newest
        if newest is None or (newest.done() and time.monotonic() - self._built_at > KEPT):
            newest = self._own_text() if self._ask_others is None else self._text_of_all(self._ask_others)
            self._newest, self._built_at = newest, time.monotonic()
        return await asyncio.shield(newest)  # A scraper that is gone must not end the text of the others.

    async def numbers(self) -> bytes:
        """Returns the numbers of this process as JSON, for another worker that is asked."""
        snapshots = self._snapshots()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._encoded, snapshots)

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown()

    def _snapshots(self) -> Sequence[tuple[ServerMetrics, Snapshot]]:
        return [(source, source.snapshot()) for source in self._sources]

    def _own_text(self) -> asyncio.Future[bytes]:
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._thread, self._built, self._snapshots())

    def _text_of_all(self, ask_others: AskOthers) -> asyncio.Future[bytes]:
        async def text() -> bytes:
            others = await ask_others()
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._built_for_all, self._snapshots(), others)

        return asyncio.ensure_future(text())

    def _built(self, snapshots: Sequence[tuple[ServerMetrics, Snapshot]]) -> bytes:
        with short_turns():
            return generate_latest(_Scrape(numbers_of(snapshots), self._process.collect))

    def _built_for_all(
        self, snapshots: Sequence[tuple[ServerMetrics, Snapshot]], others: OtherWorkers
    ) -> bytes:
        with short_turns():
            library = library_numbers(self._process.collect())
            own = {**numbers_of(snapshots), **library}
            given = [decoded(one, own) for one in others.numbers]
            together = merged(own, given, [decoded(one, own) for one in others.counts])
            together[catalogue.WORKERS] = {
                ("answering",): 1.0 + len(given),
                ("silent",): float(others.silent),
            }
            together[catalogue.REPLACED_WORKERS] = {(): float(others.replaced)}
            scrape = _Scrape(together, lambda: (_metric(one, together[one]) for one in library))
            return generate_latest(scrape)

    def _encoded(self, snapshots: Sequence[tuple[ServerMetrics, Snapshot]]) -> bytes:
        with short_turns():
            return encoded({**numbers_of(snapshots), **library_numbers(self._process.collect())})


class _Scrape(Collector):
    """Collects all numbers once, family by family.

    Args:
        numbers: The numbers.
        library: Yields what prometheus_client knows.
    """

    def __init__(self, numbers: Numbers, library: Callable[[], Iterable[Metric]]) -> None:
        self._numbers = numbers
        self._library = library

    def collect(self) -> Iterator[Metric]:
        """Yields the families of the catalogue, and then those of the process."""
        yield from (_metric(family, self._numbers.get(family, {})) for family in CATALOGUE)
        yield from self._library()


def _metric(family: Family, values: Mapping[tuple[str, ...], Value]) -> Metric:
    names = label_names(family)
    if family.kind is Kind.HISTOGRAM:
        return _histogram(family, names, values)
    make = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    metric = make(family.name, family.meaning, labels=names)
    for labels, value in values.items():
        if isinstance(value, float | int):
            metric.add_metric(labels, value)
    return metric


def _histogram(family: Family, names: Sequence[str], values: Mapping[tuple[str, ...], Value]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.meaning, labels=names)
    bounds = [f"{bound:g}" for bound in family.buckets] + ["+Inf"]
    for labels, value in values.items():
        if isinstance(value, Distribution):
            reached = 0.0
            buckets: list[tuple[str, float]] = []
            for bound, count in zip(bounds, value.counts, strict=True):
                reached += count
                buckets.append((bound, reached))
            metric.add_metric(labels, buckets, value.total)
    return metric
