"""The numbers of a scrape, and how those of several workers become one.

Workers are processes behind one address. Whichever of them is asked answers for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import orjson
from prometheus_client.core import Metric

from spincycle_server.telemetry.catalogue import CATALOGUE
from spincycle_server.telemetry.instruments import Distribution, Family, Kind, Merge, Sample, Value
from spincycle_server.telemetry.limits import SHARED_LIMITS
from spincycle_server.telemetry.metrics import ServerMetrics, Snapshot

Numbers: TypeAlias = dict[Family, dict[tuple[str, ...], Value]]
"""The numbers of each family, by the values of its labels with that of `server`."""

_BY_NAME = {family.name: family for family in CATALOGUE}
_OF_LIBRARY = {
    "process_start_time_seconds": Merge.MIN,
}
"""How gauges of prometheus_client are merged that do not add up."""


def label_names(family: Family) -> tuple[str, ...]:
    """Returns the names of all labels of a family."""
    return family.labels if family.of_process else ("server", *family.labels)


def numbers_of(sources: Sequence[tuple[ServerMetrics, Snapshot]]) -> Numbers:
    """Returns the numbers of some servers of this process. May be called in any thread.

    Args:
        sources: The servers, with the gauges that were read on the event loop.
    """
    numbers: Numbers = {}
    for source, gauges in sources:
        for family, read in gauges:
            _put(numbers, family, source.server, read)
        for instruments in source.instruments:
            _put(numbers, instruments.family, source.server, instruments.samples())
    return numbers


def _put(numbers: Numbers, family: Family, server: str, samples: Iterable[Sample]) -> None:
    into = numbers.setdefault(family, {})
    for labels, value in samples:
        into[labels if family.of_process else (server, *labels)] = value


def library_numbers(metrics: Iterable[Metric]) -> Numbers:
    """Returns the numbers that prometheus_client collects of this process: counters and gauges."""
    numbers: Numbers = {}
    for metric in metrics:
        kind = Kind.COUNTER if metric.type == "counter" else Kind.GAUGE
        names = tuple(metric.samples[0].labels) if metric.samples else ()
        merge = _OF_LIBRARY.get(metric.name, Merge.SUM)
        family = Family(metric.name, kind, metric.documentation, names, of_process=True, merge=merge)
        numbers[family] = {tuple(one.labels.values()): one.value for one in metric.samples}
    return numbers


def encoded(numbers: Numbers) -> bytes:
    """Returns numbers as JSON."""
    return orjson.dumps(
        [[family.name, [[labels, value] for labels, value in of.items()]] for family, of in numbers.items()],
        default=tuple,  # a Distribution
    )


def decoded(document: object, own: Numbers) -> Numbers:
    """Returns the numbers of another worker.

    Args:
        document: The parsed JSON of `encoded`.
        own: The numbers of this worker, which has the same families.
    """
    known = {**_BY_NAME, **{family.name: family for family in own}}
    return dict(_families(document, known))


def _families(
    document: Any, known: Mapping[str, Family]
) -> Iterator[tuple[Family, dict[tuple[str, ...], Value]]]:
    for name, samples in document:
        family = known.get(name)
        if family is not None:
            values = {tuple(labels): _value(value) for labels, value in samples if value is not None}
            yield family, values


def _value(value: Any) -> Value:
    return Distribution(tuple(value[0]), value[1]) if isinstance(value, list) else value


def merged(own: Numbers, others: Iterable[Numbers], counts: Iterable[Numbers]) -> Numbers:
    """Returns the numbers of all workers together.

    Args:
        own: Those of the worker that is asked.
        others: Those of the other workers.
        counts: Earlier ones of workers that are silent or have ended. Only counters and histograms count.
    """
    result: Numbers = {family: dict(of) for family, of in own.items()}
    for other in others:
        for family, of in other.items():
            if family.merge is not Merge.OWN:
                _merge(result.setdefault(family, {}), family, of)
    for other in counts:
        for family, of in other.items():
            if family.kind is not Kind.GAUGE:
                _merge(result.setdefault(family, {}), family, of)
    return result


def _merge(into: dict[tuple[str, ...], Value], family: Family, of: Mapping[tuple[str, ...], Value]) -> None:
    for labels, value in of.items():
        before = into.get(labels)
        into[labels] = value if before is None else _merged_value(family, labels, before, value)


def _merged_value(family: Family, labels: tuple[str, ...], one: Value, other: Value) -> Value:
    if isinstance(one, Distribution) and isinstance(other, Distribution):
        counts = tuple(map(sum, zip(one.counts, other.counts, strict=True)))
        return Distribution(counts, one.total + other.total)
    if isinstance(one, Distribution) or isinstance(other, Distribution):
        raise TypeError(f"{family.name} is a histogram in one worker only")
    merge = family.merge
    if merge is Merge.BY_LIMIT:
        merge = Merge.MAX if labels[-1] in SHARED_LIMITS else Merge.SUM
    if family.kind is Kind.COUNTER or merge is Merge.SUM:
        return one + other
    return min(one, other) if merge is Merge.MIN else max(one, other)


def add_counts(before: bytes | None, newest: bytes) -> bytes:
    """Adds up the numbers of workers that have ended.

    Args:
        before: Those of earlier ones as JSON; None if there are none.
        newest: Those of the newest one as JSON.

    Returns:
        The sums of those that add up. Only its counters and histograms are valid.
    """
    sums: dict[str, dict[tuple[str, ...], Any]] = {}
    for document in (before, newest):
        for name, samples in orjson.loads(document) if document is not None else ():
            into = sums.setdefault(name, {})
            for labels, value in samples:
                earlier = into.get(tuple(labels))
                into[tuple(labels)] = value if earlier is None else _sum(earlier, value)
    return orjson.dumps([[name, list(of.items())] for name, of in sums.items()])


def _sum(one: Any, other: Any) -> Any:
    if isinstance(one, list):
        return [[a + b for a, b in zip(one[0], other[0], strict=True)], one[1] + other[1]]
    return (one or 0) + (other or 0)
