"""Rounds of reading take a share of the time, and a few may follow each other at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from spincycle_server.watch.pace import BURST, MAX_OWED, SHARE, Pace


def test_rounds_follow_each_other_at_once_until_they_have_taken_their_share_of_a_burst() -> None:
    pace, now, took = Pace(), 100.0, 0.002
    pauses = []
    for _ in range(40):
        pauses.append(pace.pause(now, now + took))
        now += took + pauses[-1]
    at_once = pauses.index(next(pause for pause in pauses if pause > 0))
    assert at_once == pytest.approx(BURST / (took / SHARE - took), abs=1)
    assert pauses[-1] == pytest.approx(took / SHARE - took)


def test_a_quiet_time_does_not_count_for_more_than_a_burst() -> None:
    pace = Pace()
    pace.pause(0.0, 0.05)
    assert pace.pause(1000.0, 1000.05) == pytest.approx(0.05 / SHARE - BURST - 0.05)


def test_rounds_are_quick_again_soon_after_slow_ones() -> None:
    pace = Pace()
    for began in range(0, 600, 6):  # while the database is away
        assert pace.pause(began, began + 5.0) <= MAX_OWED
    assert pace.pause(600.0 + MAX_OWED, 600.001 + MAX_OWED) == 0.0


@given(some.lists(some.tuples(some.floats(0, 0.05), some.floats(0, 0.2)), min_size=1, max_size=100))
def test_rounds_never_take_more_than_their_share_and_a_burst(rounds: list[tuple[float, float]]) -> None:
    pace, now, taken = Pace(), 0.0, 0.0
    for took, idle in rounds:
        assert taken <= SHARE * (now + BURST) + 1e-9
        taken += took
        ended = now + took
        now = ended + pace.pause(now, ended) + idle
