"""Approvals with real servers, which are killed and started again while requests wait for people."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from spincycle_grpc import Client
from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.state import State
from spincycle_grpc.v1.approval_pb2 import PendingApproval
from spincycle_grpc.v1.job_log_pb2 import JobLog
from tests.databases import SharedServers, migrate
from tests.e2e import installations
from tests.e2e.installations import QUICK
from tests.e2e.processes import running
from tests.e2e.waiting import eventually
from tests.limits import ANSWER, PROCESS_END

SPECS = """
sequences:
  stop-host:
    request: true
    args: {required: [{name: host, desc: the host}]}
    nodes:
      check: {category: job, type: noop}
      permit:
        category: approval
        roles: [dba]
        message: "Stop {host}?"
        args: [{expected: host}]
        deps: [check]
      stop: {category: job, type: noop, deps: [permit]}
  two-people:
    request: true
    nodes:
      permit: {category: approval, roles: [dba], approvals: 2, notByRequester: false}
  fails-late:
    request: true
    nodes:
      permit: {category: approval, roles: [dba], timeout: 1ms}
  goes-on-late:
    request: true
    nodes:
      permit: {category: approval, roles: [dba], timeout: 1ms, onTimeout: continue}
  twice:
    request: true
    nodes:
      both: {category: sequence, type: asks-and-fails, retry: 1}
  asks-and-fails:
    nodes:
      permit: {category: approval, roles: [dba]}
      fail: {category: job, type: shell-command, args: [{expected: cmd, given: cmd}], deps: [permit]}
    args: {static: [{name: cmd, default: "false"}]}
"""
AUTH = """
auth:
  plugin: tests.e2e.users_plugin:Plugin
  admin_roles: boss
"""
FINCH, ANN, BOB, EVE = "finch:dba", "ann:dba", "bob:dba,lead", "eve:dev"


class Installation(installations.Installation):
    """Request Managers, all of which run, Job Runners and their users. Waits are those of ANN."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack, **options: Any) -> None:
        super().__init__(directory, stack, SPECS, environment=QUICK, **options)
        self.token = ANN
        self.use_cluster_key()
        self.configure(AUTH)
        for number in range(len(self.ports)):
            self.start_manager(number)

    def user(self, token: str) -> Client:
        return self.client_of(0, token)

    def create(self, kind: str = "stop-host") -> str:
        args = {"host": "web1"} if kind == "stop-host" else {}
        return self.user(FINCH).create(kind, args).id

    def wait_open(self, request_id: str, number: int = 1) -> PendingApproval:
        """Waits until a request waits for an approval, with a number of its try."""

        def look() -> PendingApproval | None:
            found = self.client.get(request_id).approvals
            return found[0] if found and getattr(found[0], "try") == number else None

        opened: PendingApproval = eventually(look)
        return opened

    def tries(self, request_id: str, name: str = "permit") -> list[JobLog]:
        return [one for one in self.client.log(request_id) if one.name == name]


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with contextlib.ExitStack() as stack:
        yield Installation(tmp_path, stack)


def reason_of(call: Callable[[], object]) -> str:
    with pytest.raises(SpinCycleError) as caught:
        call()
    return caught.value.reason


def test_a_request_waits_for_a_person_and_says_so(installation: Installation) -> None:
    installation.start_runner()
    request_id = installation.create()
    opened = installation.wait_open(request_id)
    assert (opened.request_type, opened.requester, list(opened.path)) == ("stop-host", "finch", ["permit"])
    assert opened.approval.message == "Stop web1?"
    assert opened.may_decide
    ann, finch, eve = (installation.user(token) for token in (ANN, FINCH, EVE))
    assert ann.get(request_id).waiting.startswith("waits for an approval by dba since ")
    assert [job.status.strip() for job in ann.running(request_id).jobs] == ["(waits for approval)"]
    assert [one.request_id for one in ann.list_approvals(only_mine=True).approvals] == [request_id]
    assert not finch.list_approvals(only_mine=True).approvals
    assert [one.may_decide for one in eve.list_approvals().approvals] == [False]
    assert reason_of(lambda: finch.approve(request_id)) == "OWN_REQUEST"
    assert reason_of(lambda: eve.approve(request_id)) == "NOT_AN_APPROVER"
    assert reason_of(lambda: ann.approve(request_id, comment="x" * 801)) == "BAD_COMMENT"
    assert reason_of(lambda: ann.approve(request_id, number=2)) == "APPROVAL_NOT_OPEN"
    url = f"{installation.url()}/api/v1/requests/{request_id}/approve"
    assert httpx.put(url, json={}, timeout=ANSWER).status_code == 401
    headers = {"authorization": f"Bearer {ANN}"}
    answer = httpx.put(url, json={"comment": "it is\nidle"}, headers=headers, timeout=ANSWER)
    assert answer.status_code == 200, answer.text
    assert answer.json()["approval"]["result"] == "approved"
    installation.wait_state(request_id, State.COMPLETE)
    (entry,) = installation.tries(request_id)
    assert "asked: Stop web1?" in entry.stdout
    assert "approved by ann: it is idle" in entry.stdout
    assert reason_of(lambda: installation.user(BOB).reject(request_id)) == "APPROVAL_NOT_OPEN"
    decided = [
        one
        for one in installation.user("root:boss").list_audit_events(request_id=request_id).events
        if one.operation == "RequestManager.Approve" and one.outcome == "OK"
    ]
    assert [(one.user, one.detail) for one in decided] == [
        ("ann", f"job {opened.job_id} (permit): it is idle")
    ]
    assert not ann.get(request_id).approvals


def test_a_wait_outlasts_the_death_of_all_servers_and_a_pause(installation: Installation) -> None:
    runner = installation.start_runner()
    killed, paused = installation.create(), installation.create()
    before = {one: installation.wait_open(one) for one in (killed, paused)}
    ann = installation.user(ANN)
    ann.pause(paused)
    installation.wait_state(paused, State.SUSPENDED)
    runner.kill()
    installation.manager.kill()
    installation.start_manager()
    ann.approve(killed)
    runner = installation.start_runner()
    installation.wait_state(killed, State.COMPLETE)
    assert installation.wait_open(paused) == before[paused]
    ann.resume(paused)
    installation.wait_state(paused, State.RUNNING)
    eventually(lambda: bool(ann.running(paused).jobs))
    assert runner.terminate() == 0  # A wait does not keep a runner from shutting down.
    assert installation.wait_state(paused, State.SUSPENDED).approvals == [before[paused]]
    ann.approve(paused, before[paused].job_id)
    installation.start_runner()
    installation.wait_state(paused, State.COMPLETE)
    for request_id in (killed, paused):
        assert [getattr(one, "try") for one in installation.tries(request_id)] == [1]


def test_a_rejection_and_a_time_limit_end_a_request(installation: Installation) -> None:
    installation.start_runner()
    rejected, stopped = installation.create(), installation.create()
    late, goes_on = installation.create("fails-late"), installation.create("goes-on-late")
    installation.wait_open(rejected)
    installation.user(BOB).reject(rejected, comment="not today")
    installation.wait_state(rejected, State.FAIL)
    assert [one.error for one in installation.tries(rejected)] == ["rejected by bob: not today"]
    installation.wait_open(stopped)
    installation.user(ANN).stop(stopped)
    installation.wait_state(stopped, State.STOPPED)
    assert reason_of(lambda: installation.user(ANN).approve(stopped)) == "APPROVAL_NOT_OPEN"
    installation.wait_state(late, State.FAIL)
    assert [one.error for one in installation.tries(late)] == ["not approved within 1ms: 0 of 1 approvals"]
    installation.wait_state(goes_on, State.COMPLETE)
    assert not installation.user(ANN).list_approvals().approvals


def test_two_people_decide_and_each_try_of_a_sequence_asks_anew(installation: Installation) -> None:
    installation.start_runner()
    both, twice = installation.create("two-people"), installation.create("twice")
    installation.wait_open(both)
    ann, bob = installation.user(ANN), installation.user(BOB)
    assert not ann.approve(both).result
    assert not ann.approve(both, comment="again").result
    assert [one.comment for one in ann.get(both).approvals[0].decisions] == [""]
    assert both not in [one.request_id for one in ann.list_approvals(only_mine=True).approvals]
    assert bob.approve(both).result
    installation.wait_state(both, State.COMPLETE)
    installation.wait_open(twice)
    bob.approve(twice, number=1)
    assert not installation.wait_open(twice, 2).decisions
    assert reason_of(lambda: bob.approve(twice, number=1)) == "APPROVAL_NOT_OPEN"
    ann.approve(twice)
    installation.wait_state(twice, State.FAIL)
    assert len(installation.tries(twice)) == 2


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_two_request_managers_share_approvals(
    kind: str, database_servers: SharedServers, tmp_path: Path
) -> None:
    url = database_servers.url(kind, tmp_path)
    migrate(url)
    with contextlib.ExitStack() as stack:
        first = Installation(tmp_path, stack, database=url, managers=2)
        runner = first.start_runner()
        here, there = first.client_of(0), first.client_of(1)
        request_id, other = first.create(), first.create()
        before = first.wait_open(other)
        first.wait_open(request_id)
        assert there.list_approvals(only_mine=True) == here.list_approvals(only_mine=True)
        there.approve(request_id)
        first.wait_state(request_id, State.COMPLETE)
        runner.kill()
        first.managers[1].kill()
        here.approve(other)
        first.start_runner()
        first.wait_state(other, State.COMPLETE)
        (entry,) = first.tries(other)
        assert (getattr(entry, "try"), "approved by ann" in entry.stdout) == (1, True)
        assert before.result == 0


def test_a_server_without_authentication_refuses_approvals(tmp_path: Path) -> None:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "specs.yaml").write_text(SPECS)
    arguments = ("server", "--http=127.0.0.1:0", "--specs=specs")
    with running(*arguments, directory=tmp_path) as server:
        assert server.process.wait(PROCESS_END) == 1
        server.close()
        assert "does not authenticate users" in server.log()
