"""Watching real Request Managers: two on one database, one of them killed, and the cursors of both."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from spincycle_grpc.rpc_errors import error_from_rpc
from spincycle_grpc.state import FINAL_STATES, State
from spincycle_grpc.v1.request_manager_pb2 import (
    CreateRequest,
    StopRequest,
    WatchRequest,
    WatchResponse,
)
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from spincycle_grpc.v1.request_pb2 import RequestFilter
from tests.databases import SERVERS, SharedServers, migrate
from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import eventually
from tests.limits import ANSWER, STEP

JOBS = 8
_NODES = {
    f"n{number}": {
        "category": "job",
        "type": "sleep",
        "args": [{"expected": "duration", "given": "duration"}],
        "deps": [f"n{number - 1}"] if number else [],
    }
    for number in range(JOBS)
}
SPECS = {
    "sequences": {
        "steps": {
            "request": True,
            "args": {"required": [{"name": "duration", "desc": "of each job"}]},
            "nodes": _NODES,
        }
    }
}


class Reader(threading.Thread):
    """Reads a stream in a thread until it ends or its server dies.

    Attributes:
        messages: The messages so far.
        error: How the stream failed; None if it ended.
    """

    def __init__(self, server: ServerProcess, request: WatchRequest) -> None:
        super().__init__(daemon=True)
        self._channel = grpc.insecure_channel(server.address("request-manager", "grpc"))
        self._call = RequestManagerStub(self._channel).Watch(request, timeout=STEP)
        self.messages: list[WatchResponse] = []
        self.error: grpc.RpcError | None = None
        self.start()

    def run(self) -> None:
        try:
            for message in self._call:
                self.messages.append(message)
        except grpc.RpcError as error:
            self.error = error

    def close(self) -> None:
        self._call.cancel()
        self.join(ANSWER)
        self._channel.close()

    @property
    def tries(self) -> list[str]:
        return [one.name for message in self.messages for one in message.tries]

    @property
    def states(self) -> list[int]:
        return [one.state for message in self.messages for one in message.requests]


class Installation:
    """Two Request Managers on one database, and a runner that knows both."""

    def __init__(self, directory: Path, url: str, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._directory = directory
        specs = directory / "specs"
        specs.mkdir()
        (specs / "steps.yaml").write_text(json.dumps(SPECS))
        key = directory / "key"
        key.write_text("k" * 40)
        self._environment = {
            "SPINCYCLE_SPECS_DIR": str(specs),
            "SPINCYCLE_CLUSTER_KEY_FILE": str(key),
            "SPINCYCLE_DATABASE_URL": url,
        }
        self.managers = [self._start("request-manager") for _ in range(2)]
        addresses = [manager.address("request-manager", "grpc") for manager in self.managers]
        self._start("job-runner", f"--rm={','.join(addresses)}").wait_for("reporting")

    def _start(self, *arguments: str) -> ServerProcess:
        command, *options = arguments
        return self._stack.enter_context(
            running(
                command, "--http=127.0.0.1:0", "--grpc=127.0.0.1:0", *options,
                directory=self._directory, environment=self._environment,
            )
        )  # fmt: skip

    def stub(self, number: int) -> RequestManagerStub:
        address = self.managers[number].address("request-manager", "grpc")
        return RequestManagerStub(self._stack.enter_context(grpc.insecure_channel(address)))

    def create(self, number: int, duration: str) -> str:
        request = CreateRequest(type="steps")
        request.args.update({"duration": duration})
        return self.stub(number).Create(request, timeout=ANSWER).request.id

    def read(self, number: int, request: WatchRequest) -> Reader:
        reader = Reader(self.managers[number], request)
        self._stack.callback(reader.close)
        return reader


@pytest.fixture(params=SERVERS)
def installation(
    request: pytest.FixtureRequest, database_servers: SharedServers, tmp_path: Path
) -> Iterator[Installation]:
    url = database_servers.url(request.param, tmp_path)
    migrate(url)
    with contextlib.ExitStack() as stack:
        yield Installation(tmp_path, url, stack)


NAMES = [f"n{number}" for number in range(JOBS)]


def test_a_watch_resumes_on_another_request_manager_after_the_first_was_killed(
    installation: Installation,
) -> None:
    request_id = installation.create(0, "300")
    first = installation.read(1, WatchRequest(request_id=request_id))
    everything = installation.read(0, WatchRequest(filter=RequestFilter(type="steps")))
    eventually(lambda: len(first.tries) >= 2)
    installation.managers[1].kill()
    first.join(STEP)
    assert first.error is not None
    second = installation.read(0, WatchRequest(request_id=request_id, cursor=first.messages[-1].cursor))
    second.join(STEP)
    assert second.error is None, installation.managers[0].log()
    assert not any(message.HasField("reset") for message in second.messages)
    assert [name for name in (first.tries + second.tries) if name in NAMES] == NAMES
    assert second.states[-1] == State.COMPLETE
    assert not set(first.states) & FINAL_STATES
    eventually(lambda: State.COMPLETE in everything.states)
    # The filter has no tries from before its first message.
    seen = [name for name in everything.tries if name in NAMES]
    assert seen == NAMES[len(NAMES) - len(seen) :]


def test_the_running_jobs_and_changes_of_another_request_manager_arrive(installation: Installation) -> None:
    request_id = installation.create(0, "3600000")
    reader = installation.read(1, WatchRequest(request_id=request_id))

    def running_jobs() -> list[str]:
        snapshots = [snapshot for message in reader.messages for snapshot in message.running]
        return [job.name for snapshot in snapshots for job in snapshot.jobs]

    eventually(lambda: "n0" in running_jobs())
    installation.stub(0).Stop(StopRequest(request_id=request_id), timeout=ANSWER)
    reader.join(STEP)
    assert reader.error is None
    assert reader.states[-1] == State.STOPPED
    again = installation.read(0, WatchRequest(request_id=request_id))
    again.join(STEP)
    assert again.states == [State.STOPPED]
    assert again.tries == reader.tries
    assert again.messages[-1].snapshot_complete


def test_the_streams_of_a_request_manager_that_stops_end_as_unavailable(installation: Installation) -> None:
    reader = installation.read(1, WatchRequest(filter=RequestFilter(type="steps")))
    eventually(lambda: bool(reader.messages))
    assert reader.messages[0].snapshot_complete
    assert installation.managers[1].terminate() == 0
    reader.join(STEP)
    assert reader.error is not None
    error = error_from_rpc(reader.error, "the server")
    assert (error.status.name, error.reason) == ("UNAVAILABLE", "SHUTTING_DOWN")


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (WatchRequest(request_id="nosuch"), "REQUEST_NOT_FOUND"),
        (WatchRequest(cursor="nonsense"), "BAD_CURSOR"),
        (WatchRequest(request_id="nosuch", filter=RequestFilter(type="steps")), "BAD_FILTER"),
    ],
    ids=["no such request", "a bad cursor", "an id and a filter"],
)
def test_a_bad_watch_is_refused(
    database_servers: SharedServers, tmp_path: Path, request_: WatchRequest, reason: str
) -> None:
    with running("request-manager", "--http=127.0.0.1:0", "--grpc=127.0.0.1:0", directory=tmp_path) as server:
        reader = Reader(server, request_)
        reader.join(STEP)
        reader.close()
    assert reader.error is not None
    assert error_from_rpc(reader.error, "the server").reason == reason
