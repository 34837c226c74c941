"""The audit log of a real server: effects and denials over both transports, and a flood of denials."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner

from spincycle_grpc.cli.app import cli
from spincycle_grpc.v1.audit_pb2 import AuditFilter
from spincycle_grpc.v1.request_manager_pb2 import (
    CreateRequest,
    GetRequest,
    ListAuditEventsRequest,
    StopRequest,
)
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from tests.commands.in_process import spincycle
from tests.e2e.processes import ServerProcess, running
from tests.limits import COMMAND

FINCH = (("authorization", "Bearer finch"),)
BOSS = (("authorization", "Bearer boss"),)
PLUGIN = """
from spincycle_grpc import Caller, UnauthenticatedError

CALLERS = {f"Bearer {name}": Caller(name, frozenset({name})) for name in ("finch", "boss")}


class Names:
    async def authenticate(self, metadata, peer):
        try:
            return CALLERS[metadata["authorization"]]
        except KeyError:
            raise UnauthenticatedError("send a name", reason="UNKNOWN_NAME") from None
"""
CONFIG = "auth:\n  plugin: callers:Names\n  admin_roles: [boss]\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "callers.py").write_text(PLUGIN)
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def server(directory: Path) -> Iterator[ServerProcess]:
    with running("server", "config.yaml", "--http", "127.0.0.1:0", directory=directory) as process:
        yield process


def get(server: ServerProcess, path: str, name: str = "") -> tuple[int, Any]:
    """Returns the status and the body of a GET."""
    url = f"http://{server.address('request-manager', 'http')}{path}"
    headers = {"authorization": f"Bearer {name}"} if name else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=COMMAND) as done:
            return done.status, json.load(done)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def a_nap() -> CreateRequest:
    """Returns the call that creates a request which runs until it is stopped."""
    call = CreateRequest(type="nap")
    call.args["ms"] = "3600000"
    return call


def audit_of(directory: Path) -> list[dict[str, Any]]:
    """Returns what the command `spincycle audit` prints after the server's end."""
    done = spincycle(directory, "audit", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_effects_and_denials_are_recorded(server: ServerProcess, directory: Path) -> None:
    with grpc.insecure_channel(server.address("request-manager", "grpc")) as channel:
        stub = RequestManagerStub(channel)
        created = stub.Create(a_nap(), metadata=FINCH, timeout=COMMAND).request
        stub.Stop(StopRequest(request_id=created.id), metadata=BOSS, timeout=COMMAND)
        with pytest.raises(grpc.RpcError):
            stub.ListAuditEvents(ListAuditEventsRequest(), metadata=FINCH, timeout=COMMAND)
        for _ in range(300):
            with pytest.raises(grpc.RpcError):
                stub.Get(GetRequest(request_id=created.id), timeout=COMMAND)
        wanted = ListAuditEventsRequest(filter=AuditFilter(request_id=created.id))
        seen = stub.ListAuditEvents(wanted, metadata=FINCH, timeout=COMMAND).events
        assert [(event.user, event.operation) for event in seen] == [
            ("boss", "RequestManager.Stop"),
            ("finch", "RequestManager.Create"),
        ]
    assert get(server, "/api/v1/audit")[0] == 401
    runner = f"http://{server.address('job-runner', 'http')}/api/v1/job-chains"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(runner, data=b"{}", timeout=COMMAND)
    assert get(server, "/api/v1/audit", "finch")[0] == 403
    status, page = get(server, "/api/v1/audit?outcome=OK&limit=1", "boss")
    assert (status, page["events"][0]["operation"]) == (200, "RequestManager.Stop")
    status, page = get(server, f"/api/v1/audit?outcome=OK&pageToken={page['nextPageToken']}", "boss")
    assert [event["operation"] for event in page["events"]] == ["RequestManager.Create"]
    assert "nextPageToken" not in page
    assert server.terminate() == 0
    events = audit_of(directory)
    assert {event["peer"] for event in events} == {"127.0.0.1"}
    [chain] = [event for event in events if event["operation"] == "JobRunner.NewJobChain"]
    assert (chain["transport"], chain["outcome"]) == ("http", "SERVERS_ONLY")
    unknown = [event for event in events if event["operation"] == "RequestManager.Get"]
    assert sum(event["count"] for event in unknown) == 300
    assert len(unknown) < 10
    [denied] = [event for event in events if event.get("user") == "finch" and event["outcome"] != "OK"
                and event["transport"] == "grpc"]  # fmt: skip
    assert (denied["operation"], denied["outcome"]) == ("RequestManager.ListAuditEvents", "ACCESS_DENIED")


def test_without_authentication_there_is_no_audit_log(tmp_path: Path) -> None:
    with running("server", "--http", "127.0.0.1:0", directory=tmp_path) as server:
        status, error = get(server, "/api/v1/audit")
        assert status == 409
        assert "not authenticated" in error["message"]
        with grpc.insecure_channel(server.address("request-manager", "grpc")) as channel:
            stub = RequestManagerStub(channel)
            created = stub.Create(a_nap(), timeout=COMMAND).request
            stub.Stop(StopRequest(request_id=created.id), timeout=COMMAND)
        assert server.terminate() == 0
    assert audit_of(tmp_path) == []


def test_the_history_of_a_request_shows_the_users_of_tokens(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("auth:\n  methods: [token]\n")
    assert spincycle(tmp_path, "migrate").returncode == 0
    token = spincycle(tmp_path, "token", "create", "finch", "--role", "dba").stdout.strip()
    with running("server", "config.yaml", "--http", "127.0.0.1:0", directory=tmp_path) as server:
        files = {name: tmp_path / name for name in ("token", "wrong")}
        for name, text in (("token", token), ("wrong", "no")):
            files[name].write_text(text)
            files[name].chmod(0o600)
        address = server.address("request-manager", "grpc")
        spinc = CliRunner(env={"SPINC_ADDR": address, "SPINC_TOKEN_FILE": str(files["token"])})
        created = json.loads(spinc.invoke(cli, ["start", "nap", "ms=1", "--json"], prog_name="spinc").stdout)
        history = spinc.invoke(cli, ["history", created["id"], "--json"], prog_name="spinc")
        assert history.exit_code == 0, history.stderr
        [event] = json.loads(history.stdout)
        assert (event["user"], event["authMethod"], event["outcome"]) == ("finch", "token", "OK")
        assert "peer" not in event
        wrong = ["history", created["id"], "--token-file", str(files["wrong"])]
        refused = spinc.invoke(cli, wrong, prog_name="spinc")
        assert refused.exit_code == 3
        assert server.terminate() == 0
    events = audit_of(tmp_path)
    assert [event["operation"] for event in events] == [
        "spincycle token create",
        "RequestManager.Create",
        "RequestManager.ListAuditEvents",
    ]
    assert token not in json.dumps(events)
