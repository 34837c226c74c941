"""Backoff: pauses grow up to a maximum, and chance spreads them."""

from __future__ import annotations

from itertools import pairwise

import pytest

from spincycle_grpc.backoff import Backoff


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(0.1, 0.5, jitter=0)
    assert [backoff.next() for _ in range(5)] == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5])


def test_pauses_grow_by_the_given_factor() -> None:
    backoff = Backoff(1, 100, growth=1.5, jitter=0)
    pauses = [backoff.next() for _ in range(6)]
    assert all(after == pytest.approx(1.5 * before) for before, after in pairwise(pauses))


def test_a_reset_starts_again_with_the_first_pause() -> None:
    backoff = Backoff(0.1, 10, jitter=0)
    for _ in range(4):
        backoff.next()
    backoff.reset()
    assert backoff.next() == pytest.approx(0.1)


def test_a_pause_is_no_longer_than_the_caller_can_afford() -> None:
    backoff = Backoff(1, 10, jitter=0)
    assert backoff.next(at_most=0.25) == pytest.approx(0.25)
    assert backoff.next() == pytest.approx(2)


def test_jitter_takes_off_at_most_its_fraction() -> None:
    backoff = Backoff(1, 1, jitter=0.5)
    pauses = [backoff.next() for _ in range(1000)]
    assert min(pauses) >= 0.5
    assert max(pauses) <= 1
    assert max(pauses) - min(pauses) > 0.1


def test_a_thousand_attempts_do_not_overflow() -> None:
    backoff = Backoff(0.1, 1.0, jitter=0)
    assert [backoff.next() for _ in range(3000)][-1] == pytest.approx(1.0)
