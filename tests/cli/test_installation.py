"""`spinc runners`, `count`, `server` and `whoami`: what the server says of itself and of its callers."""

from __future__ import annotations

import json

from spincycle_grpc.errors import PermissionDeniedError
from tests.cli.conftest import Spinc
from tests.fake_manager import FakeManager


def lines_of(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_runners_shows_what_each_runner_runs(spinc: Spinc) -> None:
    heading, first, second = lines_of(spinc("runners").stdout)
    assert heading == ["RUNNER", "URL", "VERSION", "STARTED", "REQUESTS", "JOBS", "TYPES", "LABELS", "STATE"]
    assert first == ["r1", "http://r1:1", "2.0", "1", "2", "1", "ok"]
    second_state = ["drains,", "does", "not", "answer"]
    assert second == ["r2", "http://r2:1", "10000+", "?", "all", "zone=a", *second_state]
    shown = json.loads(spinc("runners", "--json").stdout)
    assert [runner["id"] for runner in shown] == ["r1", "r2"]
    assert shown[0] == {
        "id": "r1",
        "url": "http://r1:1",
        "leaseExpiresAt": None,
        "version": "2.0",
        "jobTypes": ["nap"],
        "runningRequests": 1,
        "runningJobs": 2,
    }


def test_count_shows_the_number_of_each_state(manager: FakeManager, spinc: Spinc) -> None:
    result = spinc("count", "--type", "nap", "--state", "fail", "--arg", "host=db1")
    assert lines_of(result.stdout) == [["STATE", "REQUESTS"], ["PENDING", "3"], ["COMPLETE", "10,000+"]]
    [asked] = manager.requests("CountRequests")
    assert (asked.filter.type, list(asked.filter.states), list(asked.filter.args)) == (
        "nap",
        [4],
        ["host=db1"],
    )
    shown = json.loads(spinc("count", "--json").stdout)
    assert shown == [{"state": 1, "count": 3}, {"state": 3, "count": 10000, "more": True}]


def test_server_shows_faults_and_options(manager: FakeManager, spinc: Spinc) -> None:
    result = spinc("server", "--options")
    assert "version 2.0 (API 1.0.12), database sqlite" in result.stdout
    assert ["database", "FAULT", "gone"] in lines_of(result.stdout)
    assert ["auth.read", "acl", "a.yaml"] in lines_of(result.stdout)
    assert "auth.read" not in spinc("server").stdout
    manager.failures["GetConfiguration"] = [PermissionDeniedError("needs boss", reason="ACCESS_DENIED")]
    refused = spinc("server")
    assert (refused.exit_code, "needs boss" in refused.stderr) == (3, True)


def test_whoami_shows_the_caller(spinc: Spinc) -> None:
    shown = lines_of(spinc("whoami").stdout)
    assert shown == [
        ["finch,", "by", "token"],
        ["roles:", "dba,", "ops", "(administrator)"],
        ["TYPE", "YOU", "MAY"],
        ["nap", "start,", "stop"],
    ]
    assert json.loads(spinc("whoami", "--json").stdout)["authMethod"] == "token"
