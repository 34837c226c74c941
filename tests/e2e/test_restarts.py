"""Requests end correctly while Job Runners are restarted again and again."""

from __future__ import annotations

import contextlib
import itertools
import time
from pathlib import Path

import httpx

from spincycle_grpc.state import State
from tests.e2e.kinds import KINDS, SPECS, Kind, assert_ended_right
from tests.e2e.processes import ServerProcess, running
from tests.journal_jobs import JOURNAL, read_journal
from tests.limits import ANSWER, REQUEST_END

REQUESTS = 200
RUNNERS = 2
ENDED = {State.COMPLETE, State.FAIL, State.STOPPED}


def test_requests_end_correctly_while_runners_are_restarted(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    environment = {
        JOURNAL: str(journal),
        "SPINCYCLE_JOBS": "tests.journal_jobs:factory",
        "SPINCYCLE_SPECS_DIR": str(SPECS),
        "SPINCYCLE_RESUME_INTERVAL": "100ms",
    }
    with contextlib.ExitStack() as stack:
        manager = stack.enter_context(
            running("request-manager", "--http=127.0.0.1:0", directory=tmp_path, environment=environment)
        )
        address = manager.address("request-manager", "grpc")

        def start_runner() -> ServerProcess:
            arguments = ("job-runner", "--http=127.0.0.1:0", f"--rm={address}")
            return stack.enter_context(running(*arguments, directory=tmp_path, environment=environment))

        runners = [start_runner() for _ in range(RUNNERS)]
        for runner in runners:
            runner.wait_for("reporting")
        http = stack.enter_context(
            httpx.Client(base_url=f"http://{manager.address('request-manager', 'http')}", timeout=ANSWER)
        )
        kinds: dict[str, Kind] = {}
        restarts = 0
        turn = itertools.cycle(KINDS)
        waiting: set[str] = set()
        deadline = time.monotonic() + REQUEST_END
        while len(kinds) < REQUESTS or waiting:
            assert time.monotonic() < deadline, f"these requests have not ended: {sorted(waiting)}"
            for _ in range(min(20, REQUESTS - len(kinds))):
                kind = next(turn)
                created = http.post("/api/v1/requests", json={"type": kind.type, "args": kind.args})
                assert created.status_code == 201, created.text
                kinds[created.json()["id"]] = kind
                waiting.add(created.json()["id"])
            fresh = start_runner()
            old = runners.pop(0)
            assert old.terminate() == 0, old.log()
            runners.append(fresh)
            fresh.wait_for("reporting")
            restarts += 1
            for request_id in sorted(waiting):
                if http.get(f"/api/v1/requests/{request_id}").json()["state"] in ENDED:
                    waiting.discard(request_id)
        assert restarts >= REQUESTS // 20
        for request_id, kind in kinds.items():
            request = http.get(f"/api/v1/requests/{request_id}").json()
            assert_ended_right(kind, request, http.get(f"/api/v1/requests/{request_id}/log").json())
    open_tries: set[tuple[str, str]] = set()
    for line in read_journal(journal):
        which = (line["request"], line["job"])
        if line["event"] == "start":
            assert which not in open_tries, f"two tries of a job ran at once: {line}"
            open_tries.add(which)
        else:
            open_tries.remove(which)
    assert not open_tries, "the journal lacks the end of a try"
