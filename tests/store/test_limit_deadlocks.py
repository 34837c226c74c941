"""Who waits for ever: the linear search against a slow one, which lets owners end one after another."""

from __future__ import annotations

from collections.abc import Collection
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from spincycle_server.store.limit_deadlocks import Waits
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
    return waits


def slow_never_end(waits: Waits, known: Collection[Owner], without: Collection[Owner]) -> set[Owner]:
    """Looks at everything again after each end."""
    left = {one.owner for claims in waits.claims.values() for one in claims} - set(without)
    left -= {one for one in left if one.request_id in waits.ending and one not in known}
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


def test_random_waits_are_sometimes_endless() -> None:
    found = [bool(random_waits(Random(seed)).never_end(())) for seed in range(300)]
    assert 20 < sum(found) < 280
