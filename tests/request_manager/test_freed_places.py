"""The receiver of a report keeps the places that it needs, and leaves the rest to others that want places."""

from __future__ import annotations

import itertools

import pytest

from spincycle_server.request_manager.freed_places import divide

SMALL = list(itertools.product(range(5), repeat=3))


@pytest.mark.parametrize(("ended", "needed", "wanted"), SMALL)
def test_no_place_is_lost_or_given_to_two(ended: int, needed: int, wanted: int) -> None:
    kept, spare = divide(ended, needed, wanted)
    left = ended - kept - spare
    assert min(kept, spare, left) >= 0
    assert kept == min(ended, needed), "what is needed here comes first"
    assert left == min(wanted, ended - kept), "others get what they want of the rest, and no more"
