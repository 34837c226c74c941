"""What one worker begins, any other continues: streams, stops, keys, pages, sessions, notifications."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from spincycle_grpc.state import FINAL_STATES, State
from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_grpc.v1.approval_pb2 import PendingApproval
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from tests.commands.in_process import spincycle
from tests.databases import SharedServers
from tests.e2e.receiver import receiving
from tests.e2e.waiting import eventually
from tests.e2e.worker_servers import ASKS, WORKERS, each_worker, job_runner, worker_server
from tests.limits import ANSWER, REQUEST_END


@pytest.fixture
def url(database_servers: SharedServers, tmp_path: Path) -> Iterator[str]:
    with database_servers.migrated("postgresql", tmp_path) as found:
        yield found


def create(stub: RequestManagerStub, request_type: str, key: str = "", **args: str) -> str:
    request = messages.CreateRequest(type=request_type, idempotency_key=key or None)
    request.args.update(args)
    return str(stub.Create(request, timeout=ANSWER).request.id)


def state(stub: RequestManagerStub, request_id: str) -> State:
    return State(stub.Get(messages.GetRequest(request_id=request_id), timeout=ANSWER).request.state)


def wait_end(stub: RequestManagerStub, request_id: str) -> State:
    return State(eventually(lambda: (found := state(stub, request_id)) in FINAL_STATES and found))


def test_streams_and_stops_work_through_every_worker(url: str, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\necho one\nwhile [ ! -e {tmp_path}/go ]; do sleep 0.05; done\necho two\n")
    script.chmod(0o700)
    with (
        worker_server(tmp_path, url) as server,
        job_runner(tmp_path, server),
        each_worker(server) as stubs,
        ThreadPoolExecutor(2 * WORKERS) as threads,
    ):
        talk = create(stubs[0], "talk", script=str(script))
        eventually(lambda: state(stubs[1], talk) is State.RUNNING)
        job_id = next(
            job.id
            for job in stubs[0]
            .GetJobChain(messages.GetJobChainRequest(request_id=talk))
            .job_chain.jobs.values()
            if job.type == "shell-command"
        )
        written = [threads.submit(_output, stub, talk, job_id) for stub in stubs]
        seen = [threads.submit(_states, stub, talk) for stub in stubs]
        eventually(lambda: server.total("spincycle_limit_used", limit="followers") == WORKERS)
        eventually(lambda: server.total("spincycle_limit_used", limit="watchers") == WORKERS)
        (tmp_path / "go").touch()
        assert [one.result(REQUEST_END) for one in written] == ["one\ntwo\n"] * WORKERS
        assert [one.result(REQUEST_END)[-1] for one in seen] == [State.COMPLETE] * WORKERS
        for creator in range(WORKERS):
            stopper = stubs[(creator + 1) % WORKERS]
            held = create(stubs[creator], "held", gate=str(tmp_path / "never"))
            eventually(partial(_runs, stopper, held))
            stopper.Stop(messages.StopRequest(request_id=held), timeout=ANSWER)
            assert wait_end(stubs[(creator + 2) % WORKERS], held) is State.STOPPED
        paused = create(stubs[0], "held", gate=str(tmp_path / "later"))
        stubs[1].Pause(messages.PauseRequest(request_id=paused, now=True), timeout=ANSWER)
        eventually(lambda: state(stubs[2], paused) in (State.SUSPENDED, State.PENDING))
        (tmp_path / "later").touch()
        stubs[2].Resume(messages.ResumeRequest(request_id=paused), timeout=ANSWER)
        assert wait_end(stubs[0], paused) is State.COMPLETE


def _runs(stub: RequestManagerStub, request_id: str) -> bool:
    return state(stub, request_id) is State.RUNNING


def _output(stub: RequestManagerStub, request_id: str, job_id: str) -> str:
    request = messages.FollowOutputRequest(request_id=request_id, job_id=job_id)
    return "".join(answer.text.text for answer in stub.FollowOutput(request, timeout=REQUEST_END))


def _states(stub: RequestManagerStub, request_id: str) -> list[State]:
    request = messages.WatchRequest(request_id=request_id)
    return [
        State(one.state) for answer in stub.Watch(request, timeout=REQUEST_END) for one in answer.requests
    ]


def test_a_request_starts_although_another_worker_has_the_runners_stream(url: str, tmp_path: Path) -> None:
    never = {"SPINCYCLE_RESUME_INTERVAL": "1h", "SPINCYCLE_JOB_RUNNER_LEASE": "2h"}
    with worker_server(tmp_path, url, environment=never) as server, each_worker(server) as stubs:
        waiting = [create(stub, "work") for stub in stubs]
        with job_runner(tmp_path, server):
            assert {wait_end(stubs[0], one) for one in waiting} == {State.COMPLETE}
            # No worker looks for runners by itself within the test: they were told of this one.
            eventually(
                lambda: all(
                    state(stub, create(stub, "work")) in (State.RUNNING, State.COMPLETE) for stub in stubs
                )
            )


def test_a_key_makes_one_request_and_pages_continue_anywhere(url: str, tmp_path: Path) -> None:
    with worker_server(tmp_path, url) as server, each_worker(server) as stubs:
        with ThreadPoolExecutor(12) as threads:
            for number in range(10):
                begin = threading.Barrier(12)

                def call(which: int, key: str = f"key-{number}", begin: threading.Barrier = begin) -> str:
                    begin.wait(ANSWER)
                    return create(stubs[which % WORKERS], "work", key)

                assert len(set(threads.map(call, range(12)))) == 1
        made = [create(stubs[number % WORKERS], "work") for number in range(20)]
        found: list[str] = []
        token, turn = "", 0
        while not found or token:
            request = messages.FindRequest(page_size=4, page_token=token)
            page = stubs[turn % WORKERS].Find(request, timeout=ANSWER)
            found += [one.id for one in page.requests]
            token, turn = page.next_page_token, turn + 1
        assert len(found) == len(set(found)) == 30
        assert set(made) <= set(found)
        counts = [stub.CountRequests(messages.CountRequestsRequest(), timeout=ANSWER) for stub in stubs]
        assert all(one == counts[0] for one in counts)


def test_a_session_and_a_new_token_are_known_to_every_worker(url: str, tmp_path: Path) -> None:
    environment = {"SPINCYCLE_AUTH_METHODS": "token", "SPINCYCLE_CLUSTER_OPEN": "true"}
    with worker_server(tmp_path, url, environment=environment) as server, contextlib.ExitStack() as stack:
        done = spincycle(tmp_path, "token", "create", "alice", f"--db={url}", "--role=dba")
        assert done.returncode == 0, done.stderr
        page = {"x-spincycle-page": "1", "sec-fetch-site": "same-origin", "origin": f"http://{server.http}"}
        cookies = httpx.Cookies()
        clients: list[httpx.Client] = []
        while not clients or not all(server.connections(server.http).values()):
            clients.append(stack.enter_context(server.connect()))
            if not cookies:
                headers = {**page, "authorization": f"Bearer {done.stdout.strip()}"}
                signed_in = clients[0].post("/web/sign-in", headers=headers)
                assert signed_in.status_code == 204, signed_in.text
                cookies = signed_in.cookies
            clients[-1].cookies = cookies
            answer = clients[-1].get("/web/session", headers=page)
            assert answer.json()["user"] == "alice"
            assert len(clients) < 300


def test_people_approve_through_any_worker(url: str, tmp_path: Path) -> None:
    options = {"auth": {"plugin": "tests.e2e.users_plugin:Plugin"}, "cluster": {"open": True}}
    (tmp_path / "options.yaml").write_text(json.dumps(options))
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "specs.yaml").write_text(ASKS)
    with (
        worker_server(tmp_path, url, str(tmp_path / "options.yaml")) as server,
        job_runner(tmp_path, server),
        each_worker(server) as stubs,
    ):
        for creator in range(WORKERS):
            first, second = stubs[(creator + 1) % WORKERS], stubs[(creator + 2) % WORKERS]
            request = messages.CreateRequest(type="asks")
            created = stubs[creator].Create(request, timeout=ANSWER, metadata=token_of("finch:dba"))
            request_id = created.request.id
            [one] = eventually(partial(approvals_of, first, request_id))
            for stub, user in ((first, "ann:dba"), (second, "bob:dba")):
                decision = messages.ApproveRequest(request_id=request_id, job_id=one.job_id)
                stub.Approve(decision, timeout=ANSWER, metadata=token_of(user))
            eventually(partial(is_complete, stubs[creator], request_id))
            assert not any(approvals_of(stub, request_id) for stub in stubs)


def token_of(user: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {user}"),)


def is_complete(stub: RequestManagerStub, request_id: str) -> bool:
    request = messages.GetRequest(request_id=request_id)
    answer = stub.Get(request, timeout=ANSWER, metadata=token_of("finch:dba"))
    return State(answer.request.state) is State.COMPLETE


def approvals_of(stub: RequestManagerStub, request_id: str) -> list[PendingApproval]:
    request = messages.ListApprovalsRequest()
    answer = stub.ListApprovals(request, timeout=ANSWER, metadata=token_of("ann:dba"))
    return [one for one in answer.approvals if one.request_id == request_id]


def test_each_notification_is_sent_once(url: str, tmp_path: Path) -> None:
    with receiving() as receiver:
        secret = tmp_path / "secret"
        secret.write_text("whsec_" + "c2VjcmV0" * 6 + "\n")
        secret.chmod(0o600)
        options: dict[str, Any] = {
            "notifications": {
                "allowed_hosts": ["127.0.0.1"],
                "targets": {
                    "ops": {"url": receiver.url, "events": ["completed"], "secret_file": str(secret)},
                },
            }
        }
        (tmp_path / "options.yaml").write_text(json.dumps(options))
        with (
            worker_server(tmp_path, url, str(tmp_path / "options.yaml")) as server,
            job_runner(tmp_path, server),
            each_worker(server) as stubs,
        ):
            made = [create(stubs[number % WORKERS], "work") for number in range(30)]
            for request_id in made:
                assert wait_end(stubs[0], request_id) is State.COMPLETE
            eventually(lambda: len(receiver.received) >= len(made))
            delivered = "spincycle_notification_attempts_total"
            eventually(lambda: server.total(delivered, outcome="delivered") == len(made))
            assert Counter(content["requestId"] for content in receiver.contents) == Counter(made)
