"""The rates at which followers get output."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spincycle_server.job_runner.follow_pace import BATCHES, LONGEST_PAUSE, RATE, SHORTEST_PAUSE, FollowPace


def test_a_single_follower_gets_ten_batches_of_1_mib_a_second() -> None:
    pace = FollowPace()
    assert (pace.pause, pace.batch) == (SHORTEST_PAUSE, 1024 * 1024)


@given(st.integers(0, 2000))
def test_all_followers_together_get_no_more_than_the_rates(busy: int) -> None:
    pace = FollowPace()
    pace.busy = busy
    assert SHORTEST_PAUSE <= pace.pause <= LONGEST_PAUSE
    assert busy / pace.pause <= max(BATCHES, busy / LONGEST_PAUSE) + 1e-6
    least = busy * 16 * 1024 / pace.pause  # Each follower gets a little in any case.
    assert busy * pace.batch / pace.pause <= max(RATE, least) + 1e-6
