"""Who waits for ever: the linear search against a slow one, which lets owners end one after another."""

from __future__ import annotations

from collections.abc import Collection
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spincycle_server.store.limit_deadlocks import MAX_SEARCHES, Newcomer, Waits, close_circles
from spincycle_server.store.limit_rows import ClaimRow, Owner


def random_waits(random: Random) -> Waits:
    """Returns requests with sequences in each other, which hold some keys and wait for others."""
    keys = [f"k{number}" for number in range(random.randint(1, 4))]
    waits = Waits(claims={key: [] for key in keys}, most={key: random.choice([1, 1, 2, 3]) for key in keys})
    rows: dict[str, list[ClaimRow]] = {key: [] for key in keys}
    owners = [Owner(f"r{request}", sequence) for request in range(4) for sequence in ("", "s1", "s2", "s3")]
    random.shuffle(owners)
    for owner in owners[: random.randint(2, 16)]:
        wanted = random.sample(keys, random.randint(1, min(2, len(keys))))
        is_free = all(len(rows[key]) < waits.most[key] for key in wanted)
        for key in wanted:
            held_at = 1 if is_free else None
            rows[key].append(ClaimRow(key, len(rows[key]), owner.request_id, owner.sequence_id, held_at, ""))
        if owner.sequence_id and not is_free:
            around = [f"s{number}" for number in range(1, int(owner.sequence_id[1])) if random.random() < 0.7]
            waits.outer[owner] = [Owner(owner.request_id), *(Owner(owner.request_id, one) for one in around)]
    waits.claims.update(rows)
    waits.ending.update(f"r{request}" for request in range(4) if random.random() < 0.1)
    waits.ended_waits.update(one for one in waits.outer if random.random() < 0.1)
    return waits


def slow_never_end(waits: Waits, known: Collection[Owner], without: Collection[Owner]) -> set[Owner]:
    """Looks at everything again after each end."""
    left = {one.owner for claims in waits.claims.values() for one in claims} - set(without)
    left -= {
        one
        for one in left
        if (one.request_id in waits.ending or one in waits.ended_waits) and one not in known
    }
    while True:
        ending = {one for one in left if _can_end(waits, one, left)}
        if not ending:
            return left
        left.remove(min(ending))


def _can_end(waits: Waits, owner: Owner, left: set[Owner]) -> bool:
    if any(owner in outer for inner, outer in waits.outer.items() if inner in left):
        return False
    for limit_id, claims in waits.claims.items():
        for place, one in enumerate(claims):
            before = sum(other.owner in left for other in claims[:place])
            if one.owner == owner and one.held_at is None and before >= waits.most[limit_id]:
                return False
    return True


@settings(max_examples=1500, deadline=None)
@given(st.integers(min_value=0, max_value=2**48))
def test_the_linear_search_finds_the_same_as_the_slow_one(seed: int) -> None:
    random = Random(seed)
    waits = random_waits(random)
    owners = sorted({one.owner for claims in waits.claims.values() for one in claims})
    known = {one for one in owners if random.random() < 0.2}
    without = {one for one in owners if random.random() < 0.1}
    assert waits.never_end(known, without) == slow_never_end(waits, known, without)


def random_newcomers(random: Random) -> tuple[Waits, list[Newcomer]]:
    """Returns waits whose newest sequences are newcomers. Nothing in these waits."""
    waits = random_waits(random)
    outer = {one for theirs in waits.outer.values() for one in theirs}
    waiting = [one for one in waits.outer if one not in outer and random.random() < 0.7]
    for limit_id, claims in waits.claims.items():
        before = [one for one in claims if one.owner not in waiting]
        behind = [one for one in claims if one.owner in waiting]
        waits.claims[limit_id] = before + sorted(behind, key=lambda one: waiting.index(one.owner))
    newcomers = []
    for owner in waiting:
        around = [one.sequence_id for one in waits.outer[owner][1:]]
        keys = [
            limit_id for limit_id, claims in waits.claims.items() if any(one.owner == owner for one in claims)
        ]
        newcomers.append(Newcomer(owner, around, keys))
    return waits, newcomers


def slow_close_circles(waits: Waits, newcomers: list[Newcomer]) -> list[Owner]:
    """Looks at one newcomer after another."""
    known = {owner for one in newcomers for owner in (one.owner, *one.outer)}
    later = {one.owner for one in newcomers}
    refused: list[Owner] = []
    for one in newcomers:
        later.remove(one.owner)
        if one.owner in slow_never_end(waits, known, later.union(refused)):
            refused.append(one.owner)
    return refused


@settings(max_examples=1500, deadline=None)
@given(st.integers(min_value=0, max_value=2**48))
def test_the_newcomers_that_close_circles_are_those_found_one_after_another(seed: int) -> None:
    waits, newcomers = random_newcomers(Random(seed))
    assert sorted(close_circles(waits, newcomers)) == sorted(slow_close_circles(waits, newcomers))


def test_random_newcomers_sometimes_close_some_circles() -> None:
    found = [random_newcomers(Random(seed)) for seed in range(1000)]
    numbers = [(len(close_circles(*one)), len(one[1])) for one in found]
    assert sum(0 < closing < newcomers for closing, newcomers in numbers) > 50


def many_newcomers(closing: Collection[int], *, same: bool) -> tuple[Waits, list[Newcomer]]:
    """Returns a thousand sequences of one request, some of which wait for another one that waits for it.

    Args:
        closing: Which of them do.
        same: Whether all of these wait for the same key.
    """
    waits = Waits({"a": [ClaimRow("a", 1, "one", "aaaa", 1, ""), ClaimRow("a", 2, "two", "bbbb", None, "")]})
    waits.outer[Owner("two", "bbbb")] = [Owner("two")]
    newcomers = []
    for number in range(1000):
        holder, key = ("two", "b") if number in closing else ("free", "f")
        if not (same and number in closing):
            key = f"{key}{number}"
        waits.claims.setdefault(key, [ClaimRow(key, 1, holder, "", 1, "")])
        sequence_id = f"n{number}"
        waits.claims[key] = [*waits.claims[key], ClaimRow(key, number + 2, "one", sequence_id, None, "")]
        newcomers.append(Newcomer(Owner("one", sequence_id), ["aaaa"], [key]))
    waits.outer |= {one.owner: one.outer for one in newcomers}
    waits.most |= dict.fromkeys(waits.claims, 1)
    return waits, newcomers


@pytest.mark.parametrize(
    ("closing", "same"), [({0}, False), ({3, 500, 999}, False), (range(0, 1000, 2), True)]
)
def test_few_searches_find_those_of_a_thousand_that_close_circles(
    monkeypatch: pytest.MonkeyPatch, closing: Collection[int], same: bool
) -> None:
    searches = count_searches(monkeypatch)
    waits, newcomers = many_newcomers(closing, same=same)
    assert close_circles(waits, newcomers) == [Owner("one", f"n{number}") for number in sorted(closing)]
    assert len(searches) <= 10


def test_searches_have_a_bound_and_none_waits_for_ever_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    searches = count_searches(monkeypatch)
    waits, newcomers = many_newcomers(range(0, 1000, 2), same=False)
    refused = close_circles(waits, newcomers)
    assert len(searches) <= MAX_SEARCHES
    assert refused == [Owner("one", f"n{number}") for number in range(0, 1000, 2)]
    assert waits.never_end({one.owner for one in newcomers}, refused) == set()


def count_searches(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Returns a list that grows with each search."""
    searches: list[None] = []
    search = Waits.never_end

    def counted(waits: Waits, known: Collection[Owner], without: Collection[Owner] = ()) -> set[Owner]:
        searches.append(None)
        return search(waits, known, without)

    monkeypatch.setattr(Waits, "never_end", counted)
    return searches


def test_random_waits_are_sometimes_endless() -> None:
    found = [bool(random_waits(Random(seed)).never_end(())) for seed in range(300)]
    assert 20 < sum(found) < 280
