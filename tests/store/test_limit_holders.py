"""How those who hold a key are named."""

from __future__ import annotations

import pytest

from spincycle_server.store.limit_holders import MAX_PATH, FirstClaim, holders_text, names_of
from spincycle_server.store.limit_rows import Owner

MINE = "mine"
ONE, TWO, OTHER = Owner(MINE, "aaaa"), Owner(MINE, "bbbb"), Owner(MINE, "cccc")
SAME = {ONE: ["up", "a sequence"], TWO: ["up", "a sequence"], OTHER: ["up", "rest"]}


@pytest.mark.parametrize(
    ("owners", "names"),
    [
        ([Owner("r1")], "request r1"),
        ([Owner("r1"), Owner("r2")], "request r1 and request r2"),
        (
            [Owner("r1", "a"), Owner("r1", "b"), Owner("r2", "a")],
            "2 sequences of request r1 and a sequence of request r2",
        ),
        ([ONE, OTHER], "sequence up / a sequence of this request and sequence up / rest of this request"),
        ([ONE, TWO], "2 sequences up / a sequence of this request"),
        ([Owner(f"r{number}") for number in range(5)], "request r0, request r1, request r2 and 2 more"),
        ([Owner(MINE, "dddd")], "sequence dddd of this request"),
    ],
)
def test_equal_names_are_counted_and_the_first_three_are_named(owners: list[Owner], names: str) -> None:
    assert names_of(MINE, owners, SAME) == names


def test_the_names_of_long_paths_leave_room_for_what_they_do() -> None:
    owners = [Owner(MINE, str(number)) for number in range(9)]
    paths = {owner: [f"{owner.sequence_id} {'x' * 90}"] * 16 for owner in owners}
    first = [FirstClaim(number, owner, 1) for number, owner in enumerate(owners)]
    text = holders_text(MINE, first, paths)
    assert text.endswith("of this request and 6 more hold it")
    assert len(text) < 4 * MAX_PATH
