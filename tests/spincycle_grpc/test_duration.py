"""Durations: the units of specs, and days if they are allowed."""

from __future__ import annotations

import pytest

from spincycle_grpc.duration import parse_duration

HOUR = 3_600_000_000_000


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("90d", 90 * 24 * HOUR), ("1d12h", 36 * HOUR), ("0.5d", 12 * HOUR), ("36h", 36 * HOUR), ("0", 0)],
)
def test_days_are_a_unit_if_allowed(text: str, nanoseconds: int) -> None:
    assert parse_duration(text, days=True) == nanoseconds


@pytest.mark.parametrize("text", ["1d", "1h1d", "1d1h"])
def test_days_are_not_a_unit_by_default(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be a duration, for example 500ms, 1\.5s or 1h30m"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "d", "90", "-1d", "1w", "1d ", "200000d"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration"):
        parse_duration(text, days=True)
