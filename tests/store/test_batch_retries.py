"""How often and how long a batch is retried, by a fake clock."""

from __future__ import annotations

import pytest

from spincycle_server.database.troubles import Trouble
from spincycle_server.store import batch_retries
from spincycle_server.store.batch_retries import MAX_CONFLICTS, MAX_DUPLICATES, BatchRetries
from tests.store.fake_time import FakeTime

PATIENCE = 10.0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    clock = FakeTime()
    monkeypatch.setattr(batch_retries, "time", clock)
    return clock


def retries_of(writes: int = 1, *, is_away: bool = False) -> BatchRetries:
    return BatchRetries(writes, PATIENCE, is_away=is_away)


def attempts_of(retries: BatchRetries, trouble: Trouble) -> int:
    """Returns the number of attempts of a batch that always fails with the same trouble."""
    attempts = 1
    while retries.allow(trouble, is_commit_sent=False):
        attempts += 1
        assert attempts < 1000
    return attempts


def test_a_batch_waits_for_the_database_to_come_back_until_its_patience_ends(clock: FakeTime) -> None:
    retries = retries_of()
    clock.now += PATIENCE - 0.1
    assert retries.allow(Trouble.AWAY, is_commit_sent=False)
    clock.now += 0.2
    assert not retries.allow(Trouble.AWAY, is_commit_sent=False)


def test_a_batch_gives_up_at_once_while_the_database_is_away() -> None:
    assert not retries_of(is_away=True).allow(Trouble.AWAY, is_commit_sent=False)


@pytest.mark.parametrize("is_away", [False, True])
def test_a_lost_answer_to_commit_gives_time_for_the_lookup(clock: FakeTime, is_away: bool) -> None:
    retries = retries_of(is_away=is_away)
    clock.now += PATIENCE + 1  # The COMMIT itself took longer than the patience.
    assert retries.allow(Trouble.AWAY, is_commit_sent=True)
    clock.now += PATIENCE - 0.1
    assert retries.allow(Trouble.AWAY, is_commit_sent=True)
    clock.now += 0.2
    assert not retries.allow(Trouble.AWAY, is_commit_sent=True)


def test_the_time_for_the_lookup_is_given_only_once(clock: FakeTime) -> None:
    retries = retries_of()
    assert retries.allow(Trouble.AWAY, is_commit_sent=True)
    clock.now += PATIENCE / 2
    assert retries.allow(Trouble.AWAY, is_commit_sent=True)
    clock.now += PATIENCE / 2 + 0.1
    assert not retries.allow(Trouble.AWAY, is_commit_sent=True)


def test_a_conflict_after_commit_was_sent_gives_no_more_time(clock: FakeTime) -> None:
    retries = retries_of()
    clock.now += PATIENCE + 1
    assert not retries.allow(Trouble.CONFLICT, is_commit_sent=True)


@pytest.mark.parametrize("writes", [1, 2, 500])
def test_conflicts_are_limited_for_batches_of_all_sizes(writes: int) -> None:
    assert attempts_of(retries_of(writes), Trouble.CONFLICT) == MAX_CONFLICTS


def test_conflicts_are_limited_by_the_patience_too(clock: FakeTime) -> None:
    retries = retries_of()
    assert retries.allow(Trouble.CONFLICT, is_commit_sent=False)
    clock.now += PATIENCE + 1
    assert not retries.allow(Trouble.CONFLICT, is_commit_sent=False)


@pytest.mark.parametrize(("writes", "attempts"), [(1, MAX_DUPLICATES), (2, 1), (500, 1)])
def test_only_a_single_write_is_retried_when_its_key_exists(writes: int, attempts: int) -> None:
    assert attempts_of(retries_of(writes), Trouble.DUPLICATE) == attempts


@pytest.mark.parametrize("trouble", [Trouble.UNUSABLE, Trouble.TOO_LARGE, Trouble.FAULT])
def test_troubles_that_a_retry_cannot_solve_are_not_retried(trouble: Trouble) -> None:
    assert attempts_of(retries_of(), trouble) == 1


def test_pauses_grow_to_half_a_second(clock: FakeTime) -> None:
    retries = retries_of()
    for _ in range(20):
        retries.pause()
    assert 0 < clock.pauses[0] <= 0.01
    assert all(0.25 <= pause <= 0.5 for pause in clock.pauses[-10:])
