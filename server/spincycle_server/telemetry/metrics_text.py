"""The answer to a scrape: all numbers of some servers as text for Prometheus."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from spincycle_server.large_work import short_turns
from spincycle_server.telemetry.catalogue import CATALOGUE
from spincycle_server.telemetry.instruments import Distribution, Family, Kind, Sample
from spincycle_server.telemetry.metrics import ServerMetrics, Snapshot

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""The format of the text. Every version of Prometheus knows it."""

KEPT = 0.2
"""Seconds for which a text answers further scrapes, so that scrapers cannot keep a processor busy."""


class Exposition:
    """Builds the text in a thread of its own: a text with hundreds of series takes milliseconds.

    Args:
        sources: What to show. Servers may be added later.
    """

    def __init__(self, sources: Sequence[ServerMetrics]) -> None:
        self._sources = sources
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._process)
        GCCollector(registry=self._process)
        self._newest: asyncio.Future[bytes] | None = None
        self._built_at = 0.0

    async def text(self) -> bytes:
        """Returns the text. Scrapes at the same time share one."""
        newest = self._newest
        if newest is None or (newest.done() and time.monotonic() - self._built_at > KEPT):
            scrape = _Scrape([(source, source.snapshot()) for source in self._sources], self._process)
            newest = asyncio.get_running_loop().run_in_executor(self._thread, _built, scrape)
            self._newest, self._built_at = newest, time.monotonic()
        return await asyncio.shield(newest)  # A scraper that is gone must not end the text of the others.

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown()


def _built(scrape: _Scrape) -> bytes:
    with short_turns():
        return generate_latest(scrape)


class _Scrape(Collector):
    """Collects all numbers once, family by family.

    Args:
        sources: The servers, with the gauges that were read on the event loop.
        process: What prometheus_client knows of the process.
    """

    def __init__(self, sources: Sequence[tuple[ServerMetrics, Snapshot]], process: CollectorRegistry) -> None:
        self._sources = sources
        self._process = process

    def collect(self) -> Iterator[Metric]:
        """Yields the families of the catalogue, and then those of the process."""
        samples: defaultdict[Family, list[tuple[str, Sample]]] = defaultdict(list)
        for source, gauges in self._sources:
            for family, read in gauges:
                samples[family] += ((source.server, sample) for sample in read)
            for instruments in source.instruments:
                samples[instruments.family] += ((source.server, one) for one in instruments.samples())
        yield from (_metric(family, samples[family]) for family in CATALOGUE)
        yield from self._process.collect()


def _metric(family: Family, samples: Sequence[tuple[str, Sample]]) -> Metric:
    names = family.labels if family.of_process else ("server", *family.labels)
    if family.kind is Kind.HISTOGRAM:
        return _histogram(family, names, samples)
    make = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    metric = make(family.name, family.meaning, labels=names)
    for server, (labels, value) in samples:
        if isinstance(value, float | int):
            metric.add_metric(_labels(family, server, labels), value)
    return metric


def _histogram(family: Family, names: Sequence[str], samples: Sequence[tuple[str, Sample]]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.meaning, labels=names)
    bounds = [f"{bound:g}" for bound in family.buckets] + ["+Inf"]
    for server, (labels, value) in samples:
        if isinstance(value, Distribution):
            reached = 0.0
            buckets: list[tuple[str, float]] = []
            for bound, count in zip(bounds, value.counts, strict=True):
                reached += count
                buckets.append((bound, reached))
            metric.add_metric(_labels(family, server, labels), buckets, value.total)
    return metric


def _labels(family: Family, server: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    return labels if family.of_process else (server, *labels)
