"""Operators who pause, resume, stop and retry the same requests at once, through two Request Managers."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from spincycle_grpc import Client
from spincycle_grpc.errors import FailedPreconditionError
from spincycle_grpc.state import State
from tests.databases import SharedServers
from tests.e2e.processes import running
from tests.e2e.test_pause import ONCE, SPECS
from tests.e2e.waiting import eventually
from tests.journal_jobs import JOURNAL, read_journal

Call = Callable[[Client, str], object]

PAUSES: tuple[Call, ...] = (
    lambda client, request_id: client.pause(request_id),
    lambda client, request_id: client.pause(request_id, now=True),
    lambda client, request_id: client.resume(request_id),
    lambda client, request_id: client.resume(request_id),
)
STOPS: tuple[Call, ...] = (*PAUSES[:3], *(lambda client, request_id: client.stop(request_id),) * 2)


class Operators:
    """Two Request Managers and a Job Runner, and a client of each manager."""

    def __init__(self, directory: Path, url: str, stack: contextlib.ExitStack) -> None:
        self.directory = directory
        (directory / "specs.yaml").write_text(SPECS)
        environment = {
            JOURNAL: str(directory / "journal"),
            "SPINCYCLE_JOBS": "tests.journal_jobs:factory",
            "SPINCYCLE_SPECS_DIR": str(directory),
            "SPINCYCLE_RESUME_INTERVAL": "100ms",
        }

        def start(*arguments: str) -> str:
            server = running(*arguments, "--http=127.0.0.1:0", directory=directory, environment=environment)
            return stack.enter_context(server).address(arguments[0], "grpc")

        managers = [start("request-manager", "--db", url) for _ in range(2)]
        start("job-runner", f"--rm={','.join(managers)}")
        self.clients = [stack.enter_context(Client(manager)) for manager in managers]
        self._threads = stack.enter_context(concurrent.futures.ThreadPoolExecutor(8))

    def call_at_once(self, calls: list[tuple[Call, str]]) -> list[object]:
        """Makes calls through both managers, eight at once. Returns results, or reasons of refusals."""

        def made(place: int, call: Call, request_id: str) -> object:
            try:
                return call(self.clients[place % 2], request_id)
            except FailedPreconditionError as error:
                return error.reason

        return list(self._threads.map(made, range(len(calls)), *zip(*calls, strict=True)))

    def events(self, request_id: str, event: str) -> Counter[str]:
        lines = read_journal(self.directory / "journal", request_id)
        return Counter(line["name"] for line in lines if line["event"] == event)


@pytest.fixture
def operators(tmp_path: Path, database_servers: SharedServers) -> Iterator[Operators]:
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(database_servers.migrated("mariadb", tmp_path))
        yield Operators(tmp_path, url, stack)


def test_whatever_operators_do_at_once_no_job_is_done_twice_and_one_retry_runs(operators: Operators) -> None:
    random = Random(4711)
    gate = operators.directory / "gate"
    first = operators.clients[0].create("two-ways", {"gate1": str(gate), "gate2": str(gate)}).id
    eventually(lambda: operators.events(first, "start")["held2"])
    results = operators.call_at_once([(random.choice(PAUSES), first) for _ in range(60)])
    assert set(results) <= {None, "WRONG_STATE"}

    results = operators.call_at_once([(call, first) for call in random.sample(STOPS * 4, 20)])
    assert set(results) <= {None, "WRONG_STATE"}
    assert State(operators.clients[1].wait(first).state) is State.STOPPED
    retried = operators.call_at_once([(lambda client, one: client.retry(one).id, first)] * 8)
    [second] = set(retried) - {"RETRY_NOT_ENDED"}
    assert retried.count("RETRY_NOT_ENDED") == 7

    operators.call_at_once([(random.choice(PAUSES), str(second)) for _ in range(60)])
    operators.call_at_once([(PAUSES[-1], str(second))])
    gate.touch()
    assert State(operators.clients[0].wait(str(second)).state) is State.COMPLETE
    done = operators.events(first, "COMPLETE") + operators.events(str(second), "COMPLETE")
    assert done == ONCE
