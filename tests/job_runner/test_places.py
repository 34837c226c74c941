"""Each free place is dealt to one Request Manager, in turn, and again if nobody uses it."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from spincycle_server.job_runner.places import MAX_WANTED, PROMISED, Places, Turn


@dataclass
class Waiter:
    """The plain model of one Request Manager that waits."""

    name: int
    wanted: int
    unsent: int = 0


@dataclass
class Model:
    """The rule in its plainest form: one list element for each promised place.

    Attributes:
        promised: When each promise ends, oldest first.
        waiting: Who wants places, the next in turn first.
    """

    promised: list[float] = field(default_factory=list)
    waiting: list[Waiter] = field(default_factory=list)

    def promise(self, places: int, now: float) -> None:
        self.promised = [end for end in self.promised if end > now] + [now + PROMISED] * places

    def deal(self, room: int, now: float) -> None:
        self.promise(0, now)
        while self.waiting and room > len(self.promised):
            waiter = self.waiting.pop(0)
            waiter.wanted -= 1
            waiter.unsent += 1
            self.promised.append(now + PROMISED)
            if waiter.wanted:
                self.waiting.append(waiter)

    def leave(self, waiter: Waiter) -> None:
        self.waiting = [one for one in self.waiting if one is not waiter]
        del self.promised[: waiter.unsent]


@given(st.randoms(use_true_random=False), st.integers(1, 80))
def test_places_are_dealt_as_in_the_plain_model(chance: random.Random, steps: int) -> None:
    places, model, now = Places(), Model(), 0.0
    pairs: list[tuple[Turn, Waiter]] = []
    for number in range(steps):
        match chance.randrange(7):
            case 0:
                wanted = chance.randint(1, 4)
                waiter = Waiter(number, wanted)
                model.waiting.append(waiter)
                pairs.append((places.join(wanted), waiter))
            case 1 if pairs:
                turn, waiter = pairs.pop(chance.randrange(len(pairs)))
                model.leave(waiter)
                places.leave(turn)
            case 2:
                kept = chance.randint(0, 3)
                model.promise(kept, now)
                places.promise(kept, now)
            case 3:
                del model.promised[:1]
                places.taken()
            case 4 if pairs:
                turn, waiter = chance.choice(pairs)
                turn.offered = waiter.unsent = 0
            case 5:
                now += chance.choice([PROMISED / 3, PROMISED])
            case _:
                room = chance.randint(0, 8)
                before = {waiter.name: waiter.unsent for _, waiter in pairs}
                model.deal(room, now)
                dealt = places.deal(room, now)
                got = [turn for turn, waiter in pairs if waiter.unsent > before[waiter.name]]
                assert Counter(map(id, dealt)) == Counter(map(id, got))
        assert [(turn.wanted, turn.offered) for turn, _ in pairs] == [
            (waiter.wanted, waiter.unsent) for _, waiter in pairs
        ]
        assert places.wanted == sum(waiter.wanted for waiter in model.waiting)


def test_places_are_dealt_in_turn() -> None:
    places = Places()
    first, second, third = places.join(10), places.join(10), places.join(1)
    assert places.deal(2, 0.0) == [first, second]
    assert places.deal(5, 0.0) == [third, first, second]
    assert [one.offered for one in (first, second, third)] == [2, 2, 1]
    assert places.deal(5, 0.0) == []


def test_a_place_that_is_kept_is_dealt_to_nobody_until_its_promise_ends() -> None:
    places = Places()
    turn = places.join(3)
    places.promise(2, 0.0)
    assert places.deal(2, 0.0) == []
    assert places.next_end == PROMISED
    assert places.deal(2, PROMISED) == [turn]
    assert turn.offered == 2
    assert places.wanted == 1


def test_a_chain_uses_a_promise() -> None:
    places = Places()
    turn = places.join(3)
    places.deal(1, 0.0)
    places.taken()  # The runner is full again.
    places.deal(0, 0.0)
    assert turn.offered == 1
    places.deal(1, 0.0)  # A chain has ended.
    assert turn.offered == 2


def test_what_was_not_sent_to_one_who_leaves_goes_to_the_next() -> None:
    places = Places()
    leaving, staying = places.join(2), places.join(1)
    places.deal(1, 0.0)
    places.leave(leaving)
    assert places.deal(1, 0.0) == [staying]
    assert places.wanted == 0
    assert places.next_end is None


def test_the_number_of_wanted_places_has_bounds() -> None:
    places = Places()
    assert [places.join(wanted).wanted for wanted in (0, 1, 2**32 - 1)] == [1, 1, MAX_WANTED]
