"""Idempotency keys over HTTP and gRPC: one request for each key, even if the server is killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, func, select, update

from spincycle_grpc import AsyncClient, Client, ConflictError
from spincycle_grpc.state import State
from spincycle_server.store.schema import idempotency_keys
from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import eventually, wait_state
from tests.limits import ANSWER
from tests.ports import free_port

KEY = "deploy-4711-key"
PATH = "/api/v1/requests"
NAP: dict[str, Any] = {"type": "nap", "args": {"ms": "1"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running("server", "--http=127.0.0.1:0", directory=tmp_path_factory.mktemp("server")) as both:
        both.wait_for("runner reports")
        yield both


def test_a_repeated_create_gets_the_same_answer(http: httpx.Client, server: ServerProcess) -> None:
    first = http.post(PATH, json=NAP, headers={"Idempotency-Key": KEY})
    assert first.status_code == 201
    wait_state(http, first.json()["id"], State.COMPLETE)
    # Different bytes with the same meaning: the order of keys, their case, a null value.
    body = f'{{"user":null,"args":{json.dumps(NAP["args"])},"TYPE":"nap"}}'
    headers = {"idempotency-key": KEY, "Content-Type": "application/json"}
    again = http.post(PATH, content=body, headers=headers)
    assert again.status_code == 201
    assert again.json() == first.json()
    assert again.headers["Location"] == first.headers["Location"] == f"{PATH}/{first.json()['id']}"
    with Client(server.address("request-manager", "grpc")) as client:
        assert client.create("nap", {"ms": "1"}, idempotency_key=KEY).id == first.json()["id"]
    assert len([one for one in http.get(PATH).json() if one["id"] >= first.json()["id"]]) == 1


def test_a_different_create_with_the_same_key_is_refused(http: httpx.Client, server: ServerProcess) -> None:
    assert http.post(PATH, json=NAP, headers={"Idempotency-Key": "reused"}).status_code == 201
    before = http.get(PATH).json()
    for other in (
        {"type": "nap", "args": {"ms": "2"}},
        {"type": "nap", "args": {"ms": 1}},
        {"type": "nap", "args": {"ms": "1"}, "user": "finch"},
        {"type": "diamond", "args": {"ms": "1"}},
    ):
        refused = http.post(PATH, json=other, headers={"Idempotency-Key": "reused"})
        assert refused.status_code == 409
        assert refused.json()["httpStatus"] == 409
        assert "reused" not in refused.json()["message"]
    with Client(server.address("request-manager", "grpc")) as client:
        with pytest.raises(ConflictError) as raised:
            client.create("diamond", idempotency_key="reused")
        assert raised.value.reason == "IDEMPOTENCY_KEY_REUSED"
    assert [one["id"] for one in http.get(PATH).json()] == [one["id"] for one in before]


def test_each_create_without_a_key_makes_a_request(http: httpx.Client) -> None:
    assert http.post(PATH, json=NAP).json()["id"] != http.post(PATH, json=NAP).json()["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "ü"])
def test_an_invalid_key_is_refused(http: httpx.Client, key: str) -> None:
    refused = http.post(PATH, json=NAP, headers=[(b"Idempotency-Key", key.encode("latin-1"))])
    assert refused.status_code == 400
    assert "1 to 255 printable ASCII characters" in refused.json()["message"]


def test_the_longest_key_is_accepted_and_a_key_in_the_body_is_ignored(http: httpx.Client) -> None:
    ids = [
        http.post(PATH, json=NAP, headers={"Idempotency-Key": "~ " * 126 + "~~~"}).json()["id"]
        for _ in range(2)
    ]
    assert ids[0] == ids[1]
    # The JSON body is the original's, which has no key and ignores unknown fields.
    body = {**NAP, "idempotencyKey": 5, "idempotency_key": "x"}
    assert http.post(PATH, json=body).json()["id"] != http.post(PATH, json=body).json()["id"]


async def test_a_failed_create_does_not_use_its_key(server: ServerProcess) -> None:
    async with httpx.AsyncClient(
        base_url=f"http://{server.address('request-manager', 'http')}", timeout=ANSWER
    ) as http:
        headers = {"Idempotency-Key": "free"}
        assert (await http.post(PATH, json={"type": "one-job"}, headers=headers)).status_code == 400
        assert (await http.post(PATH, json=NAP, headers=headers)).status_code == 201


async def test_concurrent_creates_with_one_key_make_one_request(server: ServerProcess) -> None:
    async with AsyncClient(server.address("request-manager", "grpc")) as client:
        made = await asyncio.gather(
            *(client.create("nap", {"ms": "1"}, idempotency_key="at once") for _ in range(50))
        )
    assert len({request.id for request in made}) == 1
    assert made.count(made[0]) == 50


def test_the_log_contains_no_key(http: httpx.Client, server: ServerProcess) -> None:
    for body in (NAP, NAP, {"type": "nosuch"}, {"type": "diamond"}):
        http.post(PATH, json=body, headers={"Idempotency-Key": "never-logged"})
    server.wait_for("request was created before")
    server.wait_for("call failed", reason="IDEMPOTENCY_KEY_REUSED")
    for key in ("never-logged", KEY):
        assert key not in server.log()


def test_expired_keys_are_deleted_and_can_be_used_again(tmp_path: Path) -> None:
    with running("request-manager", "--http=127.0.0.1:0", directory=tmp_path) as manager:
        base = f"http://{manager.address('request-manager', 'http')}"
        database = create_engine(f"sqlite:///{tmp_path / 'spincycle.db'}", isolation_level="AUTOCOMMIT")
        with httpx.Client(base_url=base, timeout=ANSWER) as http, database.connect() as connection:

            def create(number: int) -> str:
                answer = http.post(PATH, json=NAP, headers={"Idempotency-Key": str(number)})
                return str(answer.json()["id"])

            before = [create(number) for number in range(3)]
            connection.execute(update(idempotency_keys).values(expires_at=1))
            rows = select(func.count()).select_from(idempotency_keys)
            eventually(lambda: connection.scalar(rows) == 0)
            assert {create(number) for number in range(3)}.isdisjoint(before)
        database.dispose()


def test_each_key_has_one_request_after_the_request_manager_was_killed(tmp_path: Path) -> None:
    """A client repeats creates with keys while the Request Manager is killed several times."""
    port = free_port()
    keys = [f"key {number}" for number in range(60)]
    made: dict[str, str] = {}

    def start() -> ServerProcess:
        server = stack.enter_context(
            running("request-manager", f"--http=127.0.0.1:{port}", directory=tmp_path)
        )
        server.wait_for("listening")
        return server

    async def create_all(manager: ServerProcess) -> None:
        """Creates all requests concurrently and kills the server after the first answer."""
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=ANSWER) as http:

            async def create(key: str) -> None:
                answer = await http.post(PATH, json=NAP, headers={"Idempotency-Key": key})
                assert answer.status_code == 201, answer.text
                assert made.setdefault(key, answer.json()["id"]) == answer.json()["id"]

            tasks = [asyncio.create_task(create(key)) for key in keys]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            manager.process.kill()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert result is None or isinstance(result, httpx.TransportError)

    with contextlib.ExitStack() as stack:
        for _ in range(3):
            asyncio.run(create_all(start()))
        start()
        http = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=ANSWER))
        for key in keys:
            answer = http.post(PATH, json=NAP, headers={"Idempotency-Key": key})
            assert answer.status_code == 201
            assert made.setdefault(key, answer.json()["id"]) == answer.json()["id"]
        stored = [request["id"] for request in http.get(PATH).json()]
        assert sorted(stored) == sorted(made.values())
