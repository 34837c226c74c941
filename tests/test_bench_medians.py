"""The interval of a median, which decides whether a change costs speed."""

from __future__ import annotations

from random import Random

import pytest

from bench.medians import median_of


def test_the_interval_of_ten_values_is_from_the_second_to_the_ninth() -> None:
    found = median_of([7, 1, 4, 10, 2, 9, 3, 8, 5, 6])
    assert (found.value, found.low, found.high) == (5.5, 2, 9)
    assert found.confidence == pytest.approx(1 - 22 / 1024)


def test_six_values_are_the_fewest() -> None:
    found = median_of([1, 2, 3, 4, 5, 6])
    assert (found.low, found.high) == (1, 6)
    with pytest.raises(ValueError, match="too few"):
        median_of([1, 2, 3, 4, 5])


@pytest.mark.parametrize("number", [6, 10, 25])
def test_the_interval_contains_the_true_median_as_often_as_it_says(number: int) -> None:
    random = Random(number)
    times = 2000
    found = [median_of([random.expovariate(1) for _ in range(number)]) for _ in range(times)]
    hits = sum(one.low <= 0.6931 <= one.high for one in found)
    assert hits / times == pytest.approx(found[0].confidence, abs=0.02)
