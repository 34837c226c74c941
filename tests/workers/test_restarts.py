"""When a worker that has ended is started again."""

from __future__ import annotations

from spincycle_server.workers.restarts import FIRST_PAUSE, LONGEST_PAUSE, MAX_FAILURES, STABLE, Restarts


def test_pauses_double_up_to_a_limit_and_then_it_ends() -> None:
    restarts = Restarts()
    pauses = [restarts.pause(0.0) for _ in range(MAX_FAILURES)]
    assert pauses[:4] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE, 8 * FIRST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE
    assert restarts.pause(STABLE - 1) is None


def test_a_worker_that_has_served_for_long_is_replaced_at_once_and_counts_anew() -> None:
    restarts = Restarts()
    for _ in range(3 * MAX_FAILURES):
        assert restarts.pause(0.0) == FIRST_PAUSE
        assert restarts.pause(STABLE) == 0.0
