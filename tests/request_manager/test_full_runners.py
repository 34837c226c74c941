"""Full runners get as many chains as have ended there, and a probe that doubles each time."""

from __future__ import annotations

import pytest

from spincycle_server.job_runner.places import PROMISED
from spincycle_server.request_manager import full_runners as full_runners_module
from spincycle_server.request_manager.full_runners import MAX_PROBED, OFFER_LASTS, PROBE, FullRunners
from tests.request_manager.doubles import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(full_runners_module, "time", clock)
    return clock


@pytest.fixture
def full(clock: Clock) -> FullRunners:
    """Full runners, of which r1 has just refused a chain."""
    full = FullRunners()
    full.refused("r1")
    return full


def taken(full: FullRunners, runner_id: str = "r1", limit: int = 2 * MAX_PROBED) -> int:
    """Gives a runner chains while it has room. Returns how many."""
    chains = 0
    while chains < limit and full.probe(runner_id):
        full.chain_given(runner_id)
        chains += 1
    return chains


def test_a_runner_that_has_refused_nothing_has_room(full: FullRunners) -> None:
    assert taken(full, "r2", limit=5000) == 5000
    assert not full.add_places("r2", 1)


def test_a_runner_that_has_refused_a_chain_has_no_room(full: FullRunners) -> None:
    assert not full.probe("r1")


def test_a_full_runner_gets_as_many_chains_as_have_ended(full: FullRunners) -> None:
    assert full.add_places("r1", 2)
    assert full.add_places("r1", 1)
    assert taken(full) == 3


def test_a_probe_has_one_chain_then_two_then_four(full: FullRunners, clock: Clock) -> None:
    clock.now += PROBE * 0.99
    assert taken(full) == 0
    probed = []
    for _ in range(4):
        clock.now += PROBE
        probed.append(taken(full))
    assert probed == [1, 2, 4, 8]


def test_ended_chains_are_added_to_a_probe(full: FullRunners, clock: Clock) -> None:
    full.add_places("r1", 5)
    clock.now += PROBE
    assert taken(full) == 6


def test_the_chains_of_a_probe_that_were_not_given_stay_available(full: FullRunners, clock: Clock) -> None:
    clock.now += PROBE
    assert full.probe("r1")
    clock.now += PROBE
    assert taken(full) == 3


def test_a_refusal_resets_the_probe_to_one_chain(full: FullRunners, clock: Clock) -> None:
    for _ in range(3):
        clock.now += PROBE
        taken(full)
    full.add_places("r1", 7)
    full.refused("r1")
    assert taken(full) == 0
    clock.now += PROBE
    assert taken(full) == 1


def test_a_refusal_leaves_the_places_that_were_learned_after_its_chain_was_sent(full: FullRunners) -> None:
    full.add_places("r1", 3)
    full.chain_given("r1")
    sent = full.learned("r1")
    full.add_places("r1", 4)
    full.refused("r1", sent)
    assert taken(full, limit=2) == 2
    full.refused("r1", sent)
    assert taken(full) == 2, "places are not counted again"


def test_a_first_refusal_leaves_no_place(full: FullRunners) -> None:
    full.refused("r2", full.learned("r2"))
    assert taken(full, "r2") == 0


def test_a_runner_that_accepts_all_probes_is_not_full(full: FullRunners, clock: Clock) -> None:
    probed = 1
    while probed <= MAX_PROBED:
        assert taken(full) == 0
        clock.now += PROBE
        assert full.probe("r1")
        probed *= 2
        if probed <= MAX_PROBED:
            assert taken(full) == probed // 2
    assert taken(full, limit=5000) == 5000
    assert not full.add_places("r1", 1)


def test_chains_that_were_given_without_room_are_subtracted(full: FullRunners, clock: Clock) -> None:
    """For example, a user's start gives a chain to a full runner, or picks were made before the refusal."""
    full.chain_given("r1")
    full.add_places("r1", 1)
    assert taken(full) == 0
    full.add_places("r1", 1)
    assert taken(full) == 1


def test_each_runner_has_its_own_room(full: FullRunners) -> None:
    full.refused("r2")
    full.add_places("r1", 1)
    assert (taken(full, "r2"), taken(full, "r1")) == (0, 1)


def test_only_runners_that_are_kept_stay_full(full: FullRunners) -> None:
    full.refused("r2")
    full.keep({"r2", "r3"})
    assert full.probe("r1")
    assert not full.add_places("r1", 1)
    assert not full.probe("r2")


def test_spare_places_end_when_others_want_places(full: FullRunners) -> None:
    full.drop_spare("r2")
    full.add_places("r1", 5, spare=3)
    full.chain_given("r1")  # uses a place that is promised
    full.drop_spare("r1")
    assert full.room("r1") == 1
    full.add_places("r1", 3, spare=3)
    for _ in range(3):
        full.chain_given("r1")
    full.add_places("r1", 4, spare=2)
    full.drop_spare("r1")
    assert taken(full) == 2, "spare places that were used are not dropped"


def test_an_offer_lasts_as_long_as_the_promise_of_the_runner() -> None:
    assert OFFER_LASTS == PROMISED


def test_places_that_were_offered_end_if_they_are_not_used_in_time(full: FullRunners, clock: Clock) -> None:
    full.add_places("r1", 2, lasts=OFFER_LASTS)
    clock.now += OFFER_LASTS / 2
    full.add_places("r1", 1, lasts=OFFER_LASTS)
    clock.now += OFFER_LASTS / 2
    full.refused("r1", 0)  # so that no probe is due
    assert full.room("r1") == 3
    clock.now += OFFER_LASTS / 2
    assert full.room("r1") == 0
    assert not full.probe("r1")
    full.add_places("r1", 1)
    clock.now += 0.9 * PROBE
    assert full.room("r1") == 1, "places of ended chains last"


def test_a_place_whose_chain_was_not_given_is_there_again(full: FullRunners) -> None:
    full.add_places("r1", 1)
    full.chain_given("r1")
    assert not full.probe("r1")
    full.chain_not_given("r1")
    assert full.room("r1") == 1
    assert taken(full) == 1
    full.chain_not_given("r2")
    assert list(full) == ["r1"]
