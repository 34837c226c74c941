"""`spinc retry` and `spinc stop` for all requests that match filters: list, question, and refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest

from spincycle_grpc import State, errors
from spincycle_grpc.cli import bulk
from spincycle_grpc.v1.request_manager_pb2 import GetRequest, GetResponse, RetryResponse
from spincycle_grpc.v1.request_pb2 import Request
from tests.cli.conftest import Spinc, Terminal, end
from tests.fake_manager import REQUEST_ID, RETRY_ID, FakeManager, stage

IDS = [f"{REQUEST_ID[:-1]}{number}" for number in range(3)]


def request(request_id: str, state: State) -> Request:
    made = stage(state, 2)
    made.id = request_id
    return made


class SeveralRequests(FakeManager):
    """Has three requests, and knows which were retried."""

    def __init__(self) -> None:
        super().__init__()
        self.found = [request(one, State.FAIL) for one in reversed(IDS)]
        self.retried: set[str] = set()

    def Get(self, asked: GetRequest, context: Any) -> GetResponse:
        self._called("Get", asked, context)
        found = request(asked.request_id, State.FAIL)
        found.retried_by = "another" if asked.request_id in self.retried else ""
        return GetResponse(request=found)

    def Retry(self, asked: Any, context: Any) -> Any:
        self._called("Retry", asked, context)
        made = request(RETRY_ID, State.PENDING)
        made.retry_of = asked.request_id
        return RetryResponse(request=made)


@pytest.fixture
def manager() -> SeveralRequests:
    return SeveralRequests()


@pytest.mark.parametrize("command", ["retry", "stop"])
def test_without_a_match_a_command_says_that_it_did_nothing(
    command: str, manager: SeveralRequests, spinc: Spinc
) -> None:
    manager.found = []
    result = spinc(command, "--type", "nap", "--yes")
    assert result.exit_code == 0
    assert result.stderr == f"spinc: nothing was done: no request to {command} matches\n"


def test_without_a_terminal_nothing_is_done_before_yes(manager: SeveralRequests, spinc: Spinc) -> None:
    result = spinc("retry", "--type", "nap", "--since", "2h")
    assert result.exit_code == 2
    assert "nothing was done: add --yes to retry 3 requests" in result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["REQUEST", *IDS]
    assert manager.requests("Retry") == []
    assert spinc("retry", "--type", "nap", "--json").exit_code == 2


def test_yes_retries_all_that_match_and_were_not_retried(manager: SeveralRequests, spinc: Spinc) -> None:
    manager.retried = {IDS[1]}
    result = spinc("retry", "--type", "nap", "--arg", "host=web7", "--yes")
    assert result.exit_code == 0
    assert [asked.request_id for asked in manager.requests("Retry")] == [IDS[0], IDS[2]]
    assert result.stdout.splitlines()[-1] == f"{IDS[2]} is retried by {RETRY_ID}"
    (wanted,) = manager.requests("Find")
    assert (wanted.filter.type, list(wanted.filter.args)) == ("nap", ["host=web7"])
    assert list(wanted.filter.states) == [State.FAIL, State.STOPPED]


def test_json_has_the_new_requests(manager: SeveralRequests, spinc: Spinc) -> None:
    shown = json.loads(spinc("retry", "--type", "nap", "--yes", "--json").stdout)
    assert [one["retryOf"] for one in shown] == IDS


def test_if_nothing_matches_nothing_is_asked(manager: SeveralRequests, spinc: Spinc) -> None:
    manager.found = []
    assert spinc("retry", "--type", "nap").exit_code == 0
    assert manager.requests("Retry") == []


def test_a_refusal_does_not_end_the_command(manager: SeveralRequests, spinc: Spinc) -> None:
    manager.failures["Retry"] = [errors.FailedPreconditionError("still runs", reason="RETRY_NOT_ENDED")]
    result = spinc("retry", "--type", "nap", "--yes")
    assert result.exit_code == 3
    assert f"cannot retry request {IDS[0]}: still runs" in result.stderr
    assert "spinc: cannot retry 1 of 3 requests" in result.stderr
    assert len(manager.requests("Retry")) == 3


def test_a_server_that_goes_away_ends_the_command(manager: SeveralRequests, spinc: Spinc) -> None:
    manager.failures["Stop"] = [errors.UnauthenticatedError("who are you", reason="NO_CREDENTIALS")]
    result = spinc("stop", "--type", "nap", "--yes")
    assert result.exit_code == 3
    assert f"cannot stop request {IDS[0]} and 2 more: who are you" in result.stderr
    assert len(manager.requests("Stop")) == 1


def test_all_that_have_not_ended_are_stopped(manager: SeveralRequests, spinc: Spinc) -> None:
    manager.found = [request(IDS[0], State.RUNNING)]
    result = spinc("stop", "--user", "ann", "--yes")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, f"stopping request {IDS[0]}")
    (wanted,) = manager.requests("Find")
    assert list(wanted.filter.states) == [State.PENDING, State.RUNNING, State.SUSPENDED]
    shown = json.loads(spinc("stop", "--user", "ann", "--yes", "--json").stdout)
    assert [one["id"] for one in shown] == [IDS[0]]
    assert spinc("stop").exit_code == 2
    assert spinc("stop", IDS[0], "--user", "ann").exit_code == 2


def test_too_many_requests_are_refused(
    manager: SeveralRequests, spinc: Spinc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "MOST", 2)
    result = spinc("stop", "--type", "nap", "--yes")
    assert result.exit_code == 2
    assert "more than 2 requests match: narrow the filters" in result.stderr
    assert manager.requests("Stop") == []


@pytest.mark.parametrize(("answer", "status", "stopped"), [("y", 0, 3), ("n", 5, 0), ("", 5, 0)])
def test_on_a_terminal_it_asks(
    manager: SeveralRequests, terminal: Terminal, answer: str, status: int, stopped: int
) -> None:
    child = terminal("stop", "--type", "nap")
    child.expect_exact("stop 3 requests? [y/N]: ")
    child.sendline(answer)
    assert end(child)[0] == status
    assert len(manager.requests("Stop")) == stopped
