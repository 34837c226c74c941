"""Limits with real servers: who waits, how stops and ends go on, and that killed servers lose no key."""

from __future__ import annotations

import contextlib
import random
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from spincycle_grpc import Client
from spincycle_grpc.errors import FailedPreconditionError
from spincycle_grpc.state import State
from tests.databases import SharedServers
from tests.e2e.deaths import LEASE, complete_amid_deaths, most_at_once
from tests.e2e.installations import JournalInstallation
from tests.e2e.waiting import eventually
from tests.limits import REQUEST_END

SPECS = """
sequences:
  work:
    request: true
    limits: [{key: "cluster/{cluster}", max: 1}]
    args:
      required: [{name: cluster, desc: a cluster}, {name: gate, desc: a file}]
    nodes:
      only: {category: job, type: held, args: [{expected: gate}]}
  refused:
    request: true
    limits: [{key: "cluster/{cluster}", max: 1, policy: refuse}]
    args: {required: [{name: cluster, desc: a cluster}]}
    nodes:
      only: {category: job, type: journal}
  replacing:
    request: true
    limits: [{key: "cluster/{cluster}", max: 1, policy: replace}]
    args: {required: [{name: cluster, desc: a cluster}]}
    nodes:
      only: {category: job, type: journal}
  short:
    request: true
    limits: [{key: "key/{key}", max: 1}, {key: "pool/{pool}", max: 2}]
    args: {required: [{name: key, desc: a key}, {name: pool, desc: a pool}]}
    nodes:
      first: {category: job, type: journal}
      second: {category: job, type: journal, deps: [first]}
  plain:
    request: true
    nodes:
      only: {category: job, type: journal}
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def installation(
    request: pytest.FixtureRequest, database_servers: SharedServers, tmp_path: Path
) -> Iterator[JournalInstallation]:
    with (
        database_servers.migrated(request.param, tmp_path) as url,
        contextlib.ExitStack() as stack,
    ):
        yield JournalInstallation(tmp_path, stack, SPECS, database=url, environment=LEASE)


def test_requests_wait_for_a_key_and_say_so(installation: JournalInstallation) -> None:
    installation.start_manager()
    installation.start_runner()
    client = installation.client

    def work(cluster: str, gate: str) -> str:
        return client.create("work", {"cluster": cluster, "gate": installation.path(gate)}).id

    first, second, other = work("a", "1"), work("a", "2"), work("b", "1")
    for started in (first, other):
        eventually(partial(installation.journal, started))
    found = client.get(second)
    assert State(found.state) is State.PENDING
    assert found.waiting.startswith("waits for the limit cluster/a of 1 since ")
    assert found.waiting.endswith(f": request {first} holds it")
    plain = client.create("plain").id
    assert State(client.wait(plain, deadline=REQUEST_END).state) is State.COMPLETE
    with pytest.raises(FailedPreconditionError) as refused:
        client.start(second)
    assert refused.value.reason == "LIMIT_REACHED"
    with pytest.raises(FailedPreconditionError) as refused:
        client.create("refused", {"cluster": "a"})
    assert refused.value.reason == "LIMIT_REACHED"
    assert f"request {first} holds it" in str(refused.value)
    [limit] = client.list_limits("cluster/a")
    assert [(one.request_id, one.holds) for one in limit.claims] == [(first, True), (second, False)]
    limits = installation.http().get("/api/v1/limits").json()
    assert {one["key"] for one in limits} == {
        "cluster/a",
        "cluster/b",
    }
    for request_id, keys in ((second, ["cluster/a"]), (other, ["cluster/b"]), (plain, [])):
        assert [one.key for one in client.list_limits(request_id=request_id)] == keys
        answer = installation.http().get("/api/v1/limits", params={"requestId": request_id})
        assert [one["key"] for one in answer.json()] == keys
    [limit] = client.list_limits(request_id=second)
    assert [one.request_id for one in limit.claims] == [first, second]
    installation.open("1")
    assert State(client.wait(first, deadline=REQUEST_END).state) is State.COMPLETE
    eventually(lambda: installation.journal(second))
    replacing = client.create("replacing", {"cluster": "a"}).id
    stopped = client.wait(second, deadline=REQUEST_END)
    assert State(stopped.state) is State.STOPPED
    assert stopped.stop_reason == f"request {replacing} replaced it at the limit cluster/a"
    assert State(client.wait(replacing, deadline=REQUEST_END).state) is State.COMPLETE
    again = client.retry(second).id
    eventually(lambda: installation.journal(again))
    assert [one.key for one in client.list_limits()] == ["cluster/a"]
    client.stop(again)
    client.wait(again, deadline=REQUEST_END)
    assert client.list_limits() == []


def test_killed_servers_lose_no_key_and_let_nobody_overtake(
    database_servers: SharedServers, tmp_path: Path
) -> None:
    chance = random.Random(17)
    wanted = [(f"k{chance.randrange(4)}", f"p{chance.randrange(2)}") for _ in range(60)]

    def create(client: Client, number: int) -> str:
        args = dict(zip(("key", "pool"), wanted[number], strict=True))
        return client.create("short", args, idempotency_key=f"request-{number}").id

    with (
        database_servers.migrated("postgresql", tmp_path) as url,
        contextlib.ExitStack() as stack,
    ):
        there = JournalInstallation(tmp_path, stack, SPECS, database=url, managers=2, environment=LEASE)
        made = complete_amid_deaths(there, len(wanted), create)
        assert there.client.list_limits() == []
        spans = _spans(there.journal())
    for place, most in enumerate((1, 2)):
        by_key: dict[str, list[str]] = defaultdict(list)
        for request_id, keys in zip(made, wanted, strict=True):
            by_key[keys[place]].append(request_id)
        for ids in by_key.values():
            assert most_at_once(spans[one] for one in ids) <= most
            if most == 1:
                assert sorted(ids, key=spans.__getitem__) == ids, "a request was overtaken"


def _spans(lines: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """Returns the first and the last line of each request in the journal."""
    spans: dict[str, tuple[int, int]] = {}
    for number, line in enumerate(lines):
        first, _ = spans.get(line["request"], (number, number))
        spans[line["request"]] = (first, number)
    return spans
