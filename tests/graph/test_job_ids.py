from __future__ import annotations

import re
from itertools import islice
from random import Random

from spincycle_server.graph.job_ids import JOB_ID_COUNT, job_ids


def test_ids_are_four_letters_or_digits() -> None:
    assert all(re.fullmatch(r"[0-9A-Za-z]{4}", job_id) for job_id in islice(job_ids(), 1_000))


def test_ids_do_not_repeat() -> None:
    assert len(set(islice(job_ids(Random(3)), 300_000))) == 300_000


def test_the_walk_visits_every_id() -> None:
    """A walk visits all 62^4 ids when its step has no factor in common with them: neither 2 nor 31."""
    assert JOB_ID_COUNT == 62**4
    for seed in range(200):
        one, other = islice(job_ids(Random(seed)), 2)
        stride = (_number(other) - _number(one)) % JOB_ID_COUNT
        assert stride % 2 == 1
        assert stride % 31 != 0


def _number(job_id: str) -> int:
    characters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    number = 0
    for character in job_id:
        number = number * 62 + characters.index(character)
    return number


def test_equal_seeds_give_equal_ids_and_other_seeds_give_others() -> None:
    assert list(islice(job_ids(Random(5)), 50)) == list(islice(job_ids(Random(5)), 50))
    assert list(islice(job_ids(Random(5)), 50)) != list(islice(job_ids(Random(6)), 50))
    assert list(islice(job_ids(), 5)) != list(islice(job_ids(), 5))
