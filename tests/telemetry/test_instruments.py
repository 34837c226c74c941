"""Instruments count as a plain slow model does, and labels stay bounded."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spincycle_server.telemetry import catalogue
from spincycle_server.telemetry.instruments import (
    MAX_NAMES,
    OTHER,
    BoundedNames,
    Counters,
    Distribution,
    Family,
    Histograms,
    Kind,
    Sample,
)

SECONDS = Family("test_seconds", Kind.HISTOGRAM, "For tests.", buckets=(0.5, 1.0, 2.0))
KINDS = Family("test_total", Kind.COUNTER, "For tests.", ("kind",))


@given(st.lists(st.floats(-1, 4, allow_nan=False), max_size=30))
def test_a_histogram_counts_each_value_in_the_first_bucket_that_holds_it(values: list[float]) -> None:
    histograms = Histograms(SECONDS)
    for value in values:
        histograms.of().observe(value)
    positive = [max(value, 0.0) for value in values]
    bounds = (*SECONDS.buckets, float("inf"))
    expected = [
        sum((index == 0 or value > bounds[index - 1]) and value <= bound for value in positive)
        for index, bound in enumerate(bounds)
    ]
    if not values:
        assert list(histograms.samples()) == []
        return
    (sample,) = histograms.samples()
    assert isinstance(sample.value, Distribution)
    assert list(sample.value.counts) == expected
    assert sample.value.total == pytest.approx(sum(positive))


def test_counters_of_other_labels_are_apart_and_begin_with_zero() -> None:
    counters = Counters(KINDS)
    counters.of("a").value += 2
    counters.of("b")
    assert list(counters.samples()) == [Sample(("a",), 2), Sample(("b",), 0)]
    assert counters.of("a") is counters.of("a")


def test_only_allowed_names_become_labels() -> None:
    names = BoundedNames()
    names.allow(["nap"])
    assert [names.label(name) for name in ("nap", "<script>", "")] == ["nap", OTHER, OTHER]


def test_names_beyond_the_limit_are_others() -> None:
    names = BoundedNames()
    wanted = [f"type-{number}" for number in range(MAX_NAMES + 50)]
    names.allow(wanted)
    names.allow(["late"])
    assert sum(names.label(name) == name for name in wanted) == MAX_NAMES
    assert names.label("late") == OTHER


@given(st.floats(0, 1e6), st.sampled_from([one for one in catalogue.CATALOGUE if one.buckets]))
def test_every_histogram_of_the_catalogue_takes_every_value(value: float, family: Family) -> None:
    histograms = Histograms(replace(family))
    histograms.of(*family.labels).observe(value)
    (sample,) = histograms.samples()
    assert isinstance(sample.value, Distribution)
    assert sample.value.counts.index(1) == bisect_left(family.buckets, value)
