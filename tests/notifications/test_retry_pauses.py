"""Pauses between attempts grow up to an hour, and honour what a receiver asks for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from spincycle_server.notifications.retry_pauses import (
    FIRST_PAUSE,
    JITTER,
    LONGEST_PAUSE,
    MAX_ATTEMPTS,
    pause_after,
    seconds_of_retry_after,
)

NOW = datetime(2026, 11, 29, 12, 0, 0, tzinfo=UTC)


def test_pauses_grow_to_the_longest_one_and_end() -> None:
    least = [min(FIRST_PAUSE * 2**number, LONGEST_PAUSE) for number in range(MAX_ATTEMPTS - 1)]
    for attempts, pause in enumerate(least, 1):
        given = pause_after(attempts)
        assert given is not None
        assert pause <= given <= pause * (1 + JITTER)
    assert 12 < sum(least) / 3600 < 16
    assert pause_after(MAX_ATTEMPTS) is None
    assert pause_after(MAX_ATTEMPTS, retry_after=60) is None


@pytest.mark.parametrize(("asked", "least"), [(1, 5), (600, 600), (1e9, LONGEST_PAUSE)])
def test_a_receiver_can_ask_for_a_longer_pause(asked: float, least: float) -> None:
    given = pause_after(1, asked)
    assert given is not None
    assert least <= given <= least * (1 + JITTER)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0), ("", 0), ("soon", 0), ("-5", 0), ("120", 120), (" 7 ", 7), ("9" * 400, 999_999_999),
        ("Sun, 29 Nov 2026 12:01:30 GMT", 90), ("Sun, 29 Nov 2026 11:00:00 GMT", 0),
        ("Sun, 29 Nov 99999 12:00:00 GMT", 0), ("Sun, 29 Nov 2026 12:00:10", 10),
    ],
)  # fmt: skip
def test_the_header_has_seconds_or_a_date(value: str | None, seconds: float) -> None:
    assert seconds_of_retry_after(value, NOW) == seconds
