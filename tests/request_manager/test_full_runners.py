"""Full runners get as many chains as have ended there, and are tried in any case, with more each time."""

from __future__ import annotations

import pytest

from spincycle_server.request_manager import full_runners as full_runners_module
from spincycle_server.request_manager.full_runners import MAX_PROBED, PROBE, FullRunners


class Clock:
    """The time, in the test's hands."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(full_runners_module, "time", clock)
    return clock


@pytest.fixture
def full(clock: Clock) -> FullRunners:
    """Of which r1 has just refused a chain."""
    full = FullRunners()
    full.refused("r1")
    return full


def taken(full: FullRunners, runner_id: str = "r1", limit: int = 2 * MAX_PROBED) -> int:
    """Gives a runner chains for as long as it has room, and returns how many."""
    chains = 0
    while chains < limit and full.probe(runner_id):
        full.chain_given(runner_id)
        chains += 1
    return chains


def test_a_runner_that_refused_nothing_has_room(full: FullRunners) -> None:
    assert taken(full, "r2", limit=5000) == 5000
    assert not full.chains_ended("r2", 1)


def test_one_that_refused_has_none(full: FullRunners) -> None:
    assert not full.probe("r1")


def test_as_many_chains_as_have_ended_are_given(full: FullRunners) -> None:
    assert full.chains_ended("r1", 2)
    assert full.chains_ended("r1", 1)
    assert taken(full) == 3


def test_without_news_it_is_tried_with_one_chain_then_two_then_four(full: FullRunners, clock: Clock) -> None:
    clock.now += PROBE * 0.99
    assert taken(full) == 0
    tried = []
    for _ in range(4):
        clock.now += PROBE
        tried.append(taken(full))
    assert tried == [1, 2, 4, 8]


def test_what_has_ended_counts_besides_the_tries(full: FullRunners, clock: Clock) -> None:
    full.chains_ended("r1", 5)
    clock.now += PROBE
    assert taken(full) == 6


def test_what_was_not_given_is_not_forgotten(full: FullRunners, clock: Clock) -> None:
    clock.now += PROBE
    assert full.probe("r1")
    clock.now += PROBE
    assert taken(full) == 3


def test_a_refusal_begins_with_one_chain_again(full: FullRunners, clock: Clock) -> None:
    for _ in range(3):
        clock.now += PROBE
        taken(full)
    full.chains_ended("r1", 7)
    full.refused("r1")
    assert taken(full) == 0
    clock.now += PROBE
    assert taken(full) == 1


def test_one_that_takes_all_that_it_is_tried_with_is_full_no_more(full: FullRunners, clock: Clock) -> None:
    tried = 1
    while tried <= MAX_PROBED:
        assert taken(full) == 0
        clock.now += PROBE
        assert full.probe("r1")
        tried *= 2
        if tried <= MAX_PROBED:
            assert taken(full) == tried // 2
    assert taken(full, limit=5000) == 5000
    assert not full.chains_ended("r1", 1)


def test_chains_that_were_given_without_room_are_made_up_for_first(full: FullRunners, clock: Clock) -> None:
    """As a user's start gives one to a runner that seems full, or several were picked before the refusal."""
    full.chain_given("r1")
    full.chains_ended("r1", 1)
    assert taken(full) == 0
    full.chains_ended("r1", 1)
    assert taken(full) == 1


def test_runners_do_not_share_their_room(full: FullRunners) -> None:
    full.refused("r2")
    full.chains_ended("r1", 1)
    assert (taken(full, "r2"), taken(full, "r1")) == (0, 1)


def test_runners_that_are_gone_are_forgotten(full: FullRunners) -> None:
    full.refused("r2")
    full.keep({"r2", "r3"})
    assert full.probe("r1")
    assert not full.chains_ended("r1", 1)
    assert not full.probe("r2")
