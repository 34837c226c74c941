"""Limits of sequences with real servers: who waits, what users see, and that killed servers lose no key."""

from __future__ import annotations

import contextlib
import random
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from spincycle_grpc import Client
from spincycle_grpc.state import State
from tests.databases import DATABASES, SERVERS, SharedServers
from tests.e2e.deaths import LEASE, complete_amid_deaths, most_at_once
from tests.e2e.installations import JournalInstallation
from tests.e2e.waiting import eventually
from tests.limits import REQUEST_END

SPECS = """
sequences:
  roll:
    request: true
    args: {required: [{name: hosts}, {name: gate}]}
    nodes:
      before: {category: job, type: journal}
      each: {category: sequence, type: host, each: ["hosts:host"], args: [{expected: gate}], deps: [before]}
      after: {category: job, type: journal, deps: [each]}
  host:
    limits: [{key: "host/{host}", max: 1}]
    args: {required: [{name: host}, {name: gate}]}
    nodes:
      hold: {category: job, type: held, args: [{expected: gate}]}
    finally:
      tidy: {category: job, type: journal}
  refused:
    request: true
    args: {required: [{name: host}]}
    nodes:
      only: {category: sequence, type: refused-host, args: [{expected: host}]}
  refused-host:
    limits: [{key: "host/{host}", max: 1, policy: refuse}]
    args: {required: [{name: host}]}
    nodes:
      work: {category: job, type: journal}
  replacing:
    request: true
    args: {required: [{name: host}]}
    nodes:
      only: {category: sequence, type: replacing-host, args: [{expected: host}]}
  replacing-host:
    limits: [{key: "host/{host}", max: 1, policy: replace}]
    args: {required: [{name: host}]}
    nodes:
      work: {category: job, type: journal}
  nested:
    request: true
    args: {required: [{name: outer}, {name: inner}, {name: gate}]}
    nodes:
      only: {category: sequence, type: outer, args: [{expected: outer}, {expected: inner}, {expected: gate}]}
  outer:
    limits: [{key: "key/{outer}", max: 1}]
    args: {required: [{name: outer}, {name: inner}, {name: gate}]}
    nodes:
      first: {category: job, type: held, args: [{expected: gate}]}
      then: {category: sequence, type: inner, args: [{expected: inner}], deps: [first]}
  inner:
    limits: [{key: "key/{inner}", max: 1}]
    args: {required: [{name: inner}]}
    nodes:
      work: {category: job, type: journal}
  cleaning:
    request: true
    args: {required: [{name: host}, {name: gate}]}
    nodes:
      work: {category: job, type: held, args: [{expected: gate}]}
    finally:
      clean: {category: sequence, type: refreshed-host, args: [{expected: host}]}
  refreshed-host:
    limits: [{key: "host/{host}", max: 1}]
    args: {required: [{name: host}]}
    nodes:
      clean: {category: job, type: journal}
  short:
    request: true
    args: {required: [{name: keys}, {name: pool}]}
    nodes:
      each: {category: sequence, type: one, each: ["keys:key"], args: [{expected: pool}]}
  one:
    limits: [{key: "k/{key}", max: 1}, {key: "p/{pool}", max: 2}]
    args: {required: [{name: key}, {name: pool}]}
    nodes:
      first: {category: job, type: journal}
      second: {category: job, type: journal, deps: [first]}
"""


@pytest.fixture(params=DATABASES)
def installation(
    request: pytest.FixtureRequest, database_servers: SharedServers, tmp_path: Path
) -> Iterator[JournalInstallation]:
    with (
        database_servers.migrated(request.param, tmp_path) as url,
        contextlib.ExitStack() as stack,
    ):
        yield JournalInstallation(tmp_path, stack, SPECS, database=url, environment=LEASE)


def waiting_of(client: Client, request_id: str) -> str:
    return client.get(request_id).waiting


def names(installation: JournalInstallation, request_id: str) -> list[str]:
    """Returns the jobs of a request that have begun, by the names of their nodes."""
    return [line["name"] for line in installation.journal(request_id) if line["event"] == "start"]


def test_sequences_wait_for_a_key_and_say_so(installation: JournalInstallation) -> None:
    installation.start_manager()
    installation.start_runner()
    client = installation.client

    def roll(*hosts: str, gate: str) -> str:
        args = {"hosts": list(hosts), "gate": installation.path(gate)}
        return client.create("roll", args).id

    first = roll("a", "b", gate="1")
    eventually(lambda: names(installation, first).count("hold") == 2)
    second = roll("b", "c", gate="2")
    eventually(lambda: "hold" in names(installation, second))
    assert names(installation, second) == ["before", "hold"]
    eventually(lambda: client.get(second).waiting)
    waiting = client.get(second).waiting
    assert waiting.startswith("waits for the limit host/b of 1 for its sequence roll / host b since ")
    assert waiting.endswith(f": a sequence of request {first} holds it")
    statuses = [one for one in client.running(second).jobs if "waits" in one.status]
    assert [(list(one.path), one.status) for one in statuses] == [
        (["roll", "host b"], "(waits for limits: host/b) ")
    ]
    limits = {one.key: one for one in client.list_limits()}
    assert {
        key: [(one.request_id, list(one.sequence_path), one.holds) for one in limit.claims]
        for key, limit in limits.items()
    } == {
        "host/a": [(first, ["roll", "host a"], True)],
        "host/b": [(first, ["roll", "host b"], True), (second, ["roll", "host b"], False)],
        "host/c": [(second, ["roll", "host c"], True)],
    }
    refused = client.create("refused", {"host": "a"}).id
    assert State(client.wait(refused, deadline=REQUEST_END).state) is State.FAIL
    assert [one.error for one in client.log(refused) if one.error] == [
        f"the limit host/a of 1 is reached: a sequence of request {first} holds it"
    ]
    assert names(installation, refused) == []
    installation.open("1")
    assert State(client.wait(first, deadline=REQUEST_END).state) is State.COMPLETE
    eventually(lambda: names(installation, second).count("hold") == 2)
    replacing = client.create("replacing", {"host": "c"}).id
    assert State(client.wait(second, deadline=REQUEST_END).state) is State.STOPPED
    assert names(installation, second).count("tidy") == 2
    assert State(client.wait(replacing, deadline=REQUEST_END).state) is State.COMPLETE
    assert client.list_limits() == []
    again = client.retry(second).id
    eventually(lambda: names(installation, again).count("hold") == 2)
    assert sorted(one.key for one in client.list_limits()) == ["host/b", "host/c"]
    installation.open("2")
    assert State(client.wait(again, deadline=REQUEST_END).state) is State.COMPLETE
    assert "before" not in names(installation, again)
    assert client.list_limits() == []


def test_a_finally_part_that_waits_after_a_stop_says_so(installation: JournalInstallation) -> None:
    installation.start_manager()
    installation.start_runner()
    client = installation.client
    gate = installation.path("1")
    holder = client.create("roll", {"hosts": ["a"], "gate": gate}).id
    eventually(lambda: "hold" in names(installation, holder))
    stopped = client.create("cleaning", {"host": "a", "gate": gate}).id
    eventually(lambda: names(installation, stopped) == ["work"])
    client.stop(stopped)
    eventually(lambda: "waits for the limit" in waiting_of(client, stopped))
    ending, _, wait = waiting_of(client, stopped).partition("; ")
    assert ending == "STOPPED after its finally nodes: stop it again to skip them"
    whose = "its sequence cleaning / finally / clean"
    assert wait.startswith(f"waits for the limit host/a of 1 for {whose} since ")
    assert wait.endswith(f": a sequence of request {holder} holds it")
    assert [one.status for one in client.running(stopped).jobs] == ["(waits for limits: host/a) "]
    installation.open("1")
    assert State(client.wait(stopped, deadline=REQUEST_END).state) is State.STOPPED
    assert names(installation, stopped) == ["work", "clean"]


def test_a_deadlock_fails_the_sequence_that_closes_the_circle(installation: JournalInstallation) -> None:
    installation.start_manager()
    installation.start_runner()
    client = installation.client
    ids = [
        client.create("nested", {"outer": outer, "inner": inner, "gate": installation.path(outer)}).id
        for outer, inner in (("x", "y"), ("y", "x"))
    ]
    for one in ids:
        eventually(partial(installation.journal, one))
    installation.open("x")
    eventually(lambda: client.get(ids[0]).waiting)
    installation.open("y")
    assert State(client.wait(ids[1], deadline=REQUEST_END).state) is State.FAIL
    errors = [one.error for one in client.log(ids[1]) if one.error]
    assert len(errors) == 1
    why = f"a sequence of request {ids[0]} is before it and waits"
    assert errors[0].startswith(f"the sequence would wait for the limit key/x for ever: {why}, ")
    assert State(client.wait(ids[0], deadline=REQUEST_END).state) is State.COMPLETE
    assert client.list_limits() == []


def test_a_wait_outlasts_kills_pauses_and_stops(installation: JournalInstallation) -> None:
    installation.start_manager()
    runner = installation.start_runner()
    client = installation.client

    def roll(gate: str) -> str:
        return client.create("roll", {"hosts": ["a"], "gate": installation.path(gate)}).id

    first = roll("1")
    eventually(lambda: "hold" in names(installation, first))
    second, third = roll("2"), roll("3")
    for one in (second, third):
        eventually(partial(waiting_of, client, one))
    client.stop(third)
    assert State(client.wait(third, deadline=REQUEST_END).state) is State.STOPPED
    assert names(installation, third) == ["before"]
    fourth = roll("4")
    eventually(lambda: client.get(fourth).waiting)
    runner.kill()
    installation.manager.kill()
    installation.start_manager()
    installation.start_runner()
    client = installation.client
    eventually(lambda: names(installation, first).count("hold") == 2)
    client.pause(second)
    eventually(lambda: State(client.get(second).state) is State.SUSPENDED)
    installation.open("1")
    assert State(client.wait(first, deadline=REQUEST_END).state) is State.COMPLETE
    (limit,) = client.list_limits()
    assert [(one.request_id, one.holds) for one in limit.claims] == [(second, True), (fourth, False)]
    client.resume(second)
    eventually(lambda: "hold" in names(installation, second))
    assert "hold" not in names(installation, fourth)
    for gate in "24":
        installation.open(gate)
    for one in (second, fourth):
        assert State(client.wait(one, deadline=REQUEST_END).state) is State.COMPLETE
    assert client.list_limits() == []


@pytest.mark.parametrize("database", SERVERS)
def test_a_killed_manager_delays_no_sequence_that_holds_or_waits(
    database_servers: SharedServers, tmp_path: Path, database: str
) -> None:
    with (
        database_servers.migrated(database, tmp_path) as url,
        contextlib.ExitStack() as stack,
    ):
        there = JournalInstallation(tmp_path, stack, SPECS, database=url, managers=2, environment=LEASE)
        managers = [there.start_manager(number) for number in range(2)]
        there.start_runner()

        def roll(number: int, gate: int) -> str:
            args = {"hosts": ["a"], "gate": there.path(str(gate))}
            return there.client_of(number % 2).create("roll", args).id

        made = [roll(0, 0)]
        eventually(lambda: "hold" in names(there, made[0]))
        for killed in (0, 1):
            made.append(roll(killed, killed + 1))
            eventually(partial(waiting_of, there.client_of(killed), made[-1]))
            managers[killed].kill()
            left = there.client_of(1 - killed)
            [limit] = left.list_limits()
            before, after = [(one.request_id, one.holds) for one in limit.claims]
            assert (before, after) == ((made[-2], True), (made[-1], False))
            assert waiting_of(left, made[-1]).endswith(f": a sequence of request {made[-2]} holds it")
            there.open(str(killed))
            assert State(left.wait(made[-2], deadline=REQUEST_END).state) is State.COMPLETE
            eventually(lambda: "hold" in names(there, made[-1]))
            managers[killed] = there.start_manager(killed)
        there.open("2")
        assert State(there.client.wait(made[-1], deadline=REQUEST_END).state) is State.COMPLETE
        assert there.client.list_limits() == []
        for request_id in made:
            assert names(there, request_id) == ["before", "hold", "tidy", "after"]


@pytest.mark.parametrize("database", SERVERS)
def test_killed_servers_lose_no_key_and_hold_none_twice(
    database_servers: SharedServers, tmp_path: Path, database: str
) -> None:
    chance = random.Random(29)
    pools = [f"p{chance.randrange(2)}" for _ in range(40)]
    keys = [[f"k{key}" for key in chance.sample(range(5), 3)] for _ in pools]

    def create(client: Client, number: int) -> str:
        args = {"keys": keys[number], "pool": pools[number]}
        return client.create("short", args, idempotency_key=f"request-{number}").id

    with (
        database_servers.migrated(database, tmp_path) as url,
        contextlib.ExitStack() as stack,
    ):
        there = JournalInstallation(tmp_path, stack, SPECS, database=url, managers=2, environment=LEASE)
        made = complete_amid_deaths(there, len(pools), create)
        assert there.client.list_limits() == []
        spans = _spans(there, dict(zip(made, pools, strict=True)))
    for where, theirs in spans.items():
        assert most_at_once(theirs) <= (1 if where.startswith("k") else 2), where


def _spans(there: JournalInstallation, made: dict[str, str]) -> dict[str, list[tuple[int, int]]]:
    """Returns the first and the last line of each sequence in the journal, by its key and by its pool."""
    sequences: dict[tuple[str, str], str] = {}
    for request_id in made:
        chain = there.client.get(request_id, with_job_chain=True).job_chain
        for job_id, job in chain.jobs.items():
            for limit in chain.jobs[job.sequence_id].sequence_limits:
                if limit.key.startswith("k/"):
                    sequences[request_id, job_id] = limit.key.removeprefix("k/")
    first_and_last: dict[tuple[str, str], tuple[int, int]] = {}
    for number, line in enumerate(there.journal()):
        where = line["request"], sequences[line["request"], line["job"]]
        first, _ = first_and_last.get(where, (number, number))
        first_and_last[where] = (first, number)
    spans: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for (request_id, key), span in first_and_last.items():
        spans[key].append(span)
        spans[made[request_id]].append(span)
    return spans
