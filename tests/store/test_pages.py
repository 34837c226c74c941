"""The room in a page."""

from __future__ import annotations

import pytest

from spincycle_server.store.pages import PageRoom


@pytest.mark.parametrize(
    ("max_items", "sizes", "taken"),
    [
        (0, [4, 6, 1], [True, True, False]),
        (0, [11, 0], [True, False]),
        (0, [0] * 5, [True] * 5),
        (2, [1, 1, 1], [True, True, False]),
        (1, [99, 1], [True, False]),
        (9, [5, 6, 5], [True, False, True]),
    ],
)
def test_a_page_has_one_item_and_as_many_more_as_fit(
    max_items: int, sizes: list[int], taken: list[bool]
) -> None:
    room = PageRoom(max_items, 10)
    assert [room.take(size) for size in sizes] == taken
