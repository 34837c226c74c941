"""`spinc locks`: the keys of limits, with who holds them and who waits."""

from __future__ import annotations

import json

from tests.cli.conftest import Spinc
from tests.fake_manager import REQUEST_ID, RETRY_ID, FakeManager, held_limit


def test_locks_shows_who_holds_a_key_and_who_waits(spinc: Spinc) -> None:
    heading, *rows = [line.split() for line in spinc("locks").stdout.splitlines()]
    assert heading == ["KEY", "LIMIT", "CLAIM", "REQUEST", "TYPE", "USER", "STATE", "FOR"]
    assert [row[:4] for row in rows[::2]] == [
        ["cluster/a", "1/1", "holds", REQUEST_ID],
        ["cluster/b", "1/2", "holds", REQUEST_ID],
    ]
    assert [row[:5] for row in rows[1::2]] == [
        ["cluster/a", "1/1", "waits", "1", RETRY_ID],
        ["cluster/b", "1/2", "waits", "1", RETRY_ID],
    ]


def test_locks_shows_the_sequences_that_hold_a_key(manager: FakeManager, spinc: Spinc) -> None:
    claim = manager.limits[0].claims[1]
    claim.sequence_id, claim.sequence_path[:] = "aaaa", ["roll", "host web7"]
    heading, *rows = spinc("locks").stdout.splitlines()
    place = heading.index("SEQUENCE")
    assert [row[place : heading.index("TYPE")].strip() for row in rows] == ["", "host web7", "", ""]


def test_locks_asks_for_one_key_and_prints_json(manager: FakeManager, spinc: Spinc) -> None:
    manager.limits = manager.limits[:1]
    shown = json.loads(spinc("locks", "cluster/a", "--json").stdout)
    assert [asked.key for asked in manager.requests("ListLimits")] == ["cluster/a"]
    [limit] = shown
    assert (limit["key"], limit["max"], limit["holding"], limit["waiting"]) == ("cluster/a", 1, 1, 1)
    assert [claim["holds"] for claim in limit["claims"]] == [True, False]


def test_locks_asks_for_the_keys_of_one_request(manager: FakeManager, spinc: Spinc) -> None:
    manager.limits = []
    for args, does in (
        ((), "holds no key and waits for none"),
        (("cluster/a",), "does not hold cluster/a or wait for it"),
    ):
        result = spinc("locks", *args, "--request", REQUEST_ID)
        told = f"spinc: request {REQUEST_ID} {does}, or you may not view it"
        assert (result.stdout, result.stderr.strip()) == ("", told)
    assert [asked.request_id for asked in manager.requests("ListLimits")] == [REQUEST_ID] * 2


def test_locks_counts_those_that_wait_before_a_claim_also_if_they_are_not_listed(
    manager: FakeManager, spinc: Spinc
) -> None:
    limit = held_limit("cluster/a", most=3)
    manager.limits = [limit]
    limit.holding, limit.waiting = 2, 298
    for claim, place in zip(limit.claims, (2, 4), strict=True):  # Two others may not be viewed.
        claim.place = place
    last = limit.claims.add(request_id=RETRY_ID, request_type="nap", place=300)
    last.since.FromSeconds(1_800_000_000)
    _, *rows = [line.split() for line in spinc("locks", "--request", RETRY_ID).stdout.splitlines()]
    assert [row[2:4] for row in rows] == [["holds", REQUEST_ID], ["waits", "2"], ["waits", "298"]]


def test_locks_does_not_say_that_a_key_is_free_that_others_may_hold(
    manager: FakeManager, spinc: Spinc
) -> None:
    manager.limits = []
    for args, key in (((), "a limit"), (("cluster/a",), "cluster/a")):
        result = spinc("locks", *args)
        told = f"spinc: no request that you may view holds or waits for {key}"
        assert (result.stdout, result.stderr.strip()) == ("", told)
