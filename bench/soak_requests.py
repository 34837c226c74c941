"""The mixed requests of the soak: how each is sent, which answer is right, and how it ends."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from bench.http_load import ANSWER_LIMIT, Connection, request_bytes
from bench.measures import PATH
from spincycle_grpc.state import State
from spincycle_grpc.structs import to_struct
from spincycle_grpc.v1 import request_manager_pb2 as messages

if TYPE_CHECKING:
    from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerAsyncStub


class UnexpectedAnswerError(Exception):
    """An answer is not the one that the request must get."""


@dataclass
class Caller:
    """One client: an HTTP connection and a gRPC stub.

    Attributes:
        http: Its connection.
        host: The host:port of the Request Manager.
        stub: The methods over gRPC.
        made: The number of created requests, by the state in which they must end.
    """

    http: Connection
    host: str
    stub: RequestManagerAsyncStub
    made: Counter[State] = field(default_factory=Counter)

    async def send(self, method: str, path: str, wanted: int, body: bytes = b"") -> Any:
        """Calls over HTTP. Returns the parsed body of the answer, if it has one.

        Raises:
            UnexpectedAnswerError: The status is not the wanted one.
        """
        async with asyncio.timeout(ANSWER_LIMIT):
            data = request_bytes(method, path, self.host, body)
            status, _, answer = await self.http.send(data)
        if status != wanted:
            raise UnexpectedAnswerError(f"{method} {status} instead of {wanted}: {answer[:200].decode()}")
        return json.loads(answer) if answer else None

    async def create(self, ends: State, request_type: str, **args: object) -> str:
        """Creates a request over HTTP, and returns its id."""
        made = await self.send("POST", PATH, 201, json.dumps({"type": request_type, "args": args}).encode())
        self.made[ends] += 1
        return str(made["id"])

    async def create_over_grpc(self, ends: State, request_type: str, **args: Any) -> str:
        """Creates a request over gRPC, and returns its id."""
        call = messages.CreateRequest(type=request_type, args=to_struct(args, "args"))
        made = await self.stub.Create(call, timeout=ANSWER_LIMIT)
        self.made[ends] += 1
        return made.request.id


async def _complete(caller: Caller) -> None:
    await caller.create(State.COMPLETE, "three-jobs")


async def _complete_over_grpc(caller: Caller) -> None:
    await caller.create_over_grpc(State.COMPLETE, "three-jobs")


async def _fleet(caller: Caller) -> None:
    await caller.create(State.COMPLETE, "fleet", hosts=[f"host-{number}" for number in range(20)])


async def _read(caller: Caller) -> None:
    request_id = await caller.create(State.COMPLETE, "three-jobs")
    await caller.send("GET", f"{PATH}/{request_id}", 200)
    await caller.send("GET", f"{PATH}/{request_id}/log", 200)
    await caller.send("GET", f"{PATH}?limit=5", 200)
    await caller.send("GET", f"{PATH}/nosuch", 404)


async def _failing(caller: Caller) -> None:
    await caller.create(State.FAIL, "soak-failing")


async def _retried(caller: Caller) -> None:
    await caller.create_over_grpc(State.FAIL, "soak-retried")


async def _shell(caller: Caller) -> None:
    await caller.create(State.COMPLETE, "soak-shell", args="-c pwd")


async def _failing_shell(caller: Caller) -> None:
    await caller.create_over_grpc(State.FAIL, "soak-shell", args="-c exit${IFS}7")


async def _followed(caller: Caller) -> None:
    """Follows the output of a job to its end."""
    request_id = await caller.create(State.COMPLETE, "soak-shell", args="-c pwd")
    chain = await caller.send("GET", f"{PATH}/{request_id}/job-chain", 200)
    [job_id] = [job["id"] for job in chain["jobs"].values() if job["type"] == "shell-command"]
    call = messages.FollowOutputRequest(request_id=request_id, job_id=job_id)
    answers = caller.stub.FollowOutput(call, timeout=ANSWER_LIMIT)
    ends = [State(message.end.state) async for message in answers if message.HasField("end")]
    if ends != [State.COMPLETE]:
        raise UnexpectedAnswerError(f"the output ended with {ends}")


async def _watched(caller: Caller) -> None:
    """Watches a request to its end."""
    request_id = await caller.create(State.FAIL, "soak-retried")
    states: list[int] = []
    call = messages.WatchRequest(request_id=request_id)
    async for message in caller.stub.Watch(call, timeout=ANSWER_LIMIT):
        states += [request.state for request in message.requests]
    if not states or states[-1] != State.FAIL:
        raise UnexpectedAnswerError(f"the watched request had the states {states}")


async def _stopped(caller: Caller) -> None:
    request_id = await caller.create(State.STOPPED, "soak-stopped")
    await caller.send("PUT", f"{PATH}/{request_id}/stop", 200)


async def _stopped_over_grpc(caller: Caller) -> None:
    request_id = await caller.create_over_grpc(State.STOPPED, "soak-stopped")
    await caller.stub.Stop(messages.StopRequest(request_id=request_id), timeout=ANSWER_LIMIT)


async def _stopped_shell(caller: Caller) -> None:
    request_id = await caller.create(State.STOPPED, "soak-shell", args="-c sleep${IFS}3600")
    await asyncio.sleep(0.05)
    await caller.send("PUT", f"{PATH}/{request_id}/stop", 200)


async def _without_args(caller: Caller) -> None:
    await caller.send("POST", PATH, 400, b'{"type": "fleet"}')


async def _unknown_type(caller: Caller) -> None:
    await caller.send("POST", PATH, 400, b'{"type": "no-such-type"}')


async def _malformed(caller: Caller) -> None:
    await caller.send("POST", PATH, 400, b'{"type": "three-jobs", "args": {')


async def _unknown_over_grpc(caller: Caller) -> None:
    try:
        await caller.create_over_grpc(State.FAIL, "no-such-type")
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
            raise UnexpectedAnswerError(f"gRPC {error.code().name}") from error
    else:
        raise UnexpectedAnswerError("gRPC OK for an unknown type")


KINDS: tuple[tuple[str, float, Callable[[Caller], Awaitable[None]]], ...] = (
    ("complete, HTTP", 31, _complete),
    ("complete, gRPC", 20, _complete_over_grpc),
    ("20 hosts", 1, _fleet),
    ("read", 6, _read),
    ("failing", 7, _failing),
    ("retried, failing, gRPC", 5, _retried),
    ("shell", 2, _shell),
    ("failing shell, gRPC", 1, _failing_shell),
    ("output followed", 1, _followed),
    ("watched, failing", 2, _watched),
    ("stopped, HTTP", 4, _stopped),
    ("stopped, gRPC", 4, _stopped_over_grpc),
    ("stopped shell", 1, _stopped_shell),
    ("without args", 4, _without_args),
    ("unknown type", 4, _unknown_type),
    ("malformed", 3, _malformed),
    ("unknown type, gRPC", 4, _unknown_over_grpc),
)
"""The kinds of requests: a name, a share in percent, and what a client does."""
