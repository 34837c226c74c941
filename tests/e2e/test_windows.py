"""A rolling restart in a sliding window with real servers, which are killed and retried in the middle."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from spincycle_grpc.state import State
from tests.e2e.hosts import Hosts
from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import eventually, wait_state
from tests.limits import ANSWER

PATH = "/api/v1/requests"
HOSTS = [f"web{number}" for number in range(1, 13)]
MOST = 3

SPECS = """
sequences:
  restart:
    request: true
    args:
      required: [{{name: hosts}}]
    nodes:
      hosts:
        category: sequence
        type: one-host
        each: ["hosts:host"]
        parallel: {{max: 3, window: sliding}}
        stopAfterFailures: 2
  one-host:
    args:
      required: [{{name: host}}]
      static: [{{name: drain, default: "{directory}/drain"}}, {{name: boot, default: "{directory}/boot"}}]
    nodes:
      drain:
        category: job
        type: shell-command
        args: [{{expected: cmd, given: drain}}, {{expected: args, given: host}}]
      boot:
        category: job
        type: shell-command
        deps: [drain]
        retry: 1
        retryWait: {{first: 10ms, factor: 2, max: 1s, jitter: true}}
        args: [{{expected: cmd, given: boot}}, {{expected: args, given: host}}]
"""


def begun(hosts: Hosts) -> list[str]:
    """Returns the hosts that were drained, in that order."""
    return [line.split()[1] for line in hosts.log() if line.startswith("drain ")]


def ended(hosts: Hosts) -> set[str]:
    return {line.split()[2] for line in hosts.log() if line.startswith("end boot ")}


def failed_hosts(http: httpx.Client, request_id: str) -> set[str]:
    """Returns the hosts whose last tries are stored, so that no later end reaches the chain before them."""
    log = http.get(f"{PATH}/{request_id}/log", params={"state": "FAIL", "latestTries": "true"}).json()
    return {entry["path"][-2].removeprefix("host ") for entry in log if entry["try"] == 2}


def most_at_a_time(hosts: Hosts) -> int:
    """Returns how many hosts were between their first and their last step at the same time."""
    open_hosts: set[str] = set()
    most = 0
    for line in hosts.log():
        host = line.split()[-1]
        open_hosts = open_hosts - {host} if line.startswith("end boot ") else open_hosts | {host}
        most = max(most, len(open_hosts))
    return most


@contextlib.contextmanager
def server_of(hosts: Hosts, url: str) -> Iterator[tuple[ServerProcess, httpx.Client]]:
    with running(
        "server",
        "--http=127.0.0.1:0",
        f"--specs={hosts.specs}",
        f"--db={url}",
        directory=hosts.directory,
        environment={"SPINCYCLE_JOB_RUNNER_LEASE": "2s", "SPINCYCLE_RESUME_INTERVAL": "0.2s"},
    ) as server:
        server.wait_for("runner reports")
        base = f"http://{server.address('request-manager', 'http')}"
        with httpx.Client(base_url=base, timeout=ANSWER) as http:
            yield server, http


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    return Hosts(tmp_path, SPECS, "drain", "boot")


def test_a_sliding_window_outlasts_a_kill_and_bounds_failures(hosts: Hosts, migrated_url: str) -> None:
    slow = hosts.waits("boot web1")
    bad = [hosts.is_bad("boot web8"), hosts.is_bad("boot web9")]
    later = hosts.waits("drain web6")
    tenth = hosts.waits("drain web10")  # Otherwise the others could all begin before web9 has failed.
    with server_of(hosts, migrated_url) as (server, http):
        made = http.post(PATH, json={"type": "restart", "args": {"hosts": HOSTS}})
        assert made.status_code == 201, made.text
        first_id = str(made.json()["id"])
        eventually(lambda: "web6" in begun(hosts))
        assert "web1" not in ended(hosts), "no host waits for the end of a batch"
        server.kill()
    later.unlink()
    with server_of(hosts, migrated_url) as (_, http):
        eventually(lambda: {"web8", "web9"} <= failed_hosts(http, first_id))
        slow.unlink()
        tenth.unlink()
        failed = wait_state(http, first_id, State.FAIL)
        untouched = [host for host in HOSTS if host not in begun(hosts)]
        assert "web12" in untouched
        assert untouched == HOSTS[-len(untouched) :]
        assert most_at_a_time(hosts) <= MOST + len(bad)  # Hosts that failed never end.
        chain = failed["JobChain"]
        (window,) = chain["windows"].values()
        assert (window["max"], window["stopAfterFailures"], len(window["firstJobIds"])) == (3, 2, len(HOSTS))
        for mark in bad:
            mark.unlink()
        hosts.forget()
        again = http.post(f"{PATH}/{first_id}/retry", json={}).json()
        wait_state(http, again["id"], State.COMPLETE)
    assert sorted(begun(hosts)) == sorted(untouched)  # Up to MOST of them begin at the same time.
    assert ended(hosts) == {"web8", "web9", *untouched}
    assert most_at_a_time(hosts) <= MOST
