"""Ages and times on the command line."""

from __future__ import annotations

import time

import click
import pytest

from spincycle_server.commands.times import Age, Moment

DAY = 86_400_000_000


def test_an_age_is_a_positive_duration_in_microseconds() -> None:
    assert Age().convert("90d", None, None) == 90 * DAY
    assert Age().convert("1h30m", None, None) == 90 * 60_000_000
    for wrong in ("0s", "90", "-1d", "soon"):
        with pytest.raises(click.UsageError):
            Age().convert(wrong, None, None)


def test_a_moment_is_a_time_or_a_duration_before_now() -> None:
    assert Moment().convert("2027-01-15T08:00:00Z", None, None) == 1_800_000_000_000_000
    assert Moment().convert("2027-01-15T10:00:00.5+02:00", None, None) == 1_800_000_000_500_000
    before = time.time_ns() // 1000
    moment = Moment().convert("7d", None, None)
    assert before <= moment + 7 * DAY <= time.time_ns() // 1000
    assert Moment().convert("1900-01-01T00:00:00Z", None, None) == 0
    with pytest.raises(click.UsageError, match="like 7d"):
        Moment().convert("yesterday", None, None)


def test_a_time_without_a_zone_is_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        assert Moment().convert("2027-01-15T13:30:00", None, None) == 1_800_000_000_000_000
    finally:
        monkeypatch.undo()
        time.tzset()
