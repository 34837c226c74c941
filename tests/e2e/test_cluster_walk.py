"""Operators upgrade clusters at once: with locks, an approval, and a finally that runs after a stop."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.installations import HostsInstallation
from tests.e2e.terminal import Terminal, open_terminal
from tests.e2e.waiting import eventually
from tests.host_jobs import what_was_done

SPECS = """
sequences:
  upgrade:
    request: true
    limits: [{key: "cluster/{cluster}"}]
    args: {required: [{name: cluster, desc: the cluster}, {name: hosts, desc: its hosts}]}
    nodes:
      permit:
        category: approval
        roles: [lead]
        message: "Upgrade cluster {cluster}?"
        args: [{expected: cluster}]
      host: {category: sequence, type: one-host, each: ["hosts:host"], deps: [permit]}
    finally:
      report: {category: job, type: verify, args: [{expected: host, given: cluster}]}
  one-host:
    limits: [{key: "host/{host}"}]
    args: {required: [{name: host, desc: the host}]}
    nodes:
      drain: {category: job, type: drain, args: [{expected: host}]}
      restart: {category: job, type: restart, args: [{expected: host}], deps: [drain]}
    finally:
      undrain: {category: job, type: verify, args: [{expected: host}]}
"""
CONFIG = "auth: {plugin: 'tests.e2e.users_plugin:Plugin'}\n"
OPERATOR, LEAD = "finch:dba", "ann:lead"


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[HostsInstallation]:
    with contextlib.ExitStack() as stack:
        yield HostsInstallation(tmp_path, stack, SPECS, CONFIG)


@contextlib.contextmanager
def terminal_of(installation: HostsInstallation, user: str) -> Iterator[Terminal]:
    token = installation.directory / f"{user.partition(':')[0]}.token"
    token.touch(mode=0o600)
    token.write_text(user)
    with open_terminal(
        installation.directory, SPINC_ADDR=installation.grpc(), SPINC_TOKEN_FILE=str(token)
    ) as opened:
        yield opened


@pytest.fixture
def operator(installation: HostsInstallation) -> Iterator[Terminal]:
    with terminal_of(installation, OPERATOR) as opened:
        yield opened


@pytest.fixture
def lead(installation: HostsInstallation) -> Iterator[Terminal]:
    with terminal_of(installation, LEAD) as opened:
        yield opened


def started(terminal: Terminal, cluster: str, *hosts: str) -> str:
    """Starts the upgrade of a cluster, and returns the id of the request."""
    names = ",".join(f'"{host}"' for host in hosts)
    shown = terminal.type(f"spinc start upgrade cluster={cluster} 'hosts:=[{names}]'")
    found = re.search(r"\b[0-9a-v]{20}\b", shown)
    assert found is not None, shown
    return found[0]


def until(terminal: Terminal, command: str, text: str) -> str:
    """Waits in the shell until a command shows a text, and returns what it shows."""
    terminal.type(f"until spinc {command} | grep -q '{text}'; do sleep 0.5; done")
    return terminal.type(f"spinc {command}")


def test_two_operators_upgrade_clusters_with_locks_an_approval_and_a_stop(
    installation: HostsInstallation, operator: Terminal, lead: Terminal
) -> None:
    directory = installation.directory
    for gate in ("restart-a1", "verify-a1", "verify-a2"):
        (directory / f"{gate}.gate").touch()
    first, second = started(operator, "a", "a1", "a2"), started(operator, "a", "a1", "a2")
    other = started(operator, "b", "b1", "b2")
    assert re.search(r"waiting +waits for .*cluster/a", operator.type(f"spinc status {second}"))
    locks = operator.type("spinc locks")
    assert "cluster/a" in locks
    assert "cluster/b" in locks

    waiting = until(lead, "ps --waiting", other)
    assert first in waiting
    assert second not in waiting
    assert "spinc approve" in until(lead, f"status {first}", "Upgrade cluster a?")
    operator.type(f"spinc approve {first}")
    assert operator.status() == 3, "the requester may not decide"
    for request_id in (first, other):
        lead.type(f"spinc approve {request_id} --comment 'in the maintenance window'")
        assert lead.status() == 0
    assert f"upgrade {other}: COMPLETE" in operator.type(f"spinc watch {other}")

    eventually(lambda: what_was_done(directory)["start restart a1"])
    shared = started(operator, "c", "a1")
    until(lead, "ps --waiting", shared)
    lead.type(f"spinc approve {shared}")
    waits = until(operator, f"status {shared}", "waits for the limit host/a1 of 1")
    assert "its sequence upgrade / host a1 since" in waits
    assert f"a sequence of request {first} holds it" in waits
    locks = operator.type(f"spinc locks --request {shared}")
    assert re.search(r"host/a1 .*holds", locks)
    assert re.search(r"host/a1 .*waits 1", locks)
    assert "cluster/a" not in locks
    operator.type(f"spinc stop {first}")
    until(operator, f"status {first}", "STOPPED after its finally nodes")
    eventually(
        lambda: what_was_done(directory)["start verify a1"] and what_was_done(directory)["end restart a2"]
    )
    installation.kill_all()
    installation.start_all()
    assert re.search(r"waiting +waits for .*cluster/a", until(operator, f"status {second}", second))
    for gate in ("verify-a1", "verify-a2", "restart-a1"):
        (directory / f"{gate}.gate").unlink()
    until(operator, f"status {first}", "state *STOPPED")
    # The other cluster gets the host once its finally node has run, and alone restarts it to the end.
    assert f"upgrade {shared}: COMPLETE" in operator.type(f"spinc watch {shared}")
    assert what_was_done(directory)["end restart a1"] == 1

    until(lead, "ps --waiting", second)
    lead.type(f"spinc reject {second} --comment 'not twice in a night'")
    until(operator, f"status {second}", "state *FAIL")
    assert "not twice in a night" in operator.type(f"spinc log {second}")
    done = what_was_done(directory)
    ends = {event: times for event, times in done.items() if event.startswith("end verify ")}
    assert ends == {
        "end verify a1": 2, "end verify a2": 1, "end verify b1": 1, "end verify b2": 1,
        "end verify a": 2, "end verify b": 1, "end verify c": 1,
    }  # fmt: skip
    locks = operator.type("spinc locks")
    assert "cluster/" not in locks
    assert "host/" not in locks
