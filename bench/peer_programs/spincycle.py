"""Clients of a Request Manager, for `bench.peers`. Arguments: its HTTP address, and a type of requests.

The clients poll, because a stream costs more than two or three looks at a request that takes milliseconds.
They look first when most of the time has passed that requests take, so that two or three looks are enough.
That time is the servers' own record. What the clients see includes their pauses, which would then grow by
themselves.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import datetime

from bench.http_load import Connection, connect, request_bytes
from bench.peer_programs.answers import answer_orders, own_output
from spincycle_grpc.state import FINAL_STATES, State

PATH = "/api/v1/requests"
FIRST_LOOK = 0.8
"""The share of the usual time after which a client looks whether its request has ended."""

SHORTEST_PAUSE = 0.001
"""Seconds between two looks, at least."""


class Clients:
    """Clients of one Request Manager, each with a connection.

    Args:
        address: The HTTP address of the Request Manager.
        request_type: The type of the requests.

    Attributes:
        usual: Seconds that requests take at the moment.
    """

    def __init__(self, address: str, request_type: str) -> None:
        self._address = address
        self._create = request_bytes("POST", PATH, address, json.dumps({"type": request_type}).encode())
        self._idle: list[Connection] = []
        self.usual = 0.0

    async def run_request(self) -> None:
        """Creates a request, and returns when it is COMPLETE."""
        connection = self._idle.pop() if self._idle else await connect(self._address)
        began = time.perf_counter()
        status, _, body = await connection.send(self._create)
        assert status == 201, body
        look = request_bytes("GET", f"{PATH}/{json.loads(body)['id']}?view=BASIC", self._address)
        await asyncio.sleep(began + FIRST_LOOK * self.usual - time.perf_counter())
        while True:
            _, _, body = await connection.send(look)
            request = json.loads(body)
            if request["state"] in FINAL_STATES:
                break
            await asyncio.sleep(max(SHORTEST_PAUSE, (1 - FIRST_LOOK) * self.usual))
        assert request["state"] == State.COMPLETE, body
        self.usual += (_recorded_seconds(request) - self.usual) / 5
        self._idle.append(connection)

    def forget(self) -> None:
        """Forgets how long requests took, for example with another number of clients."""
        self.usual = 0.0


def _recorded_seconds(request: dict[str, str]) -> float:
    """Returns the time from the creation of a request until its end, by the clock of the servers."""
    created, finished = (datetime.fromisoformat(request[name]) for name in ("createdAt", "finishedAt"))
    return (finished - created).total_seconds()


async def main() -> None:
    """Runs clients as they are ordered."""
    answers = own_output()
    clients = Clients(*sys.argv[1:])
    await answer_orders(answers, clients.run_request, clients.forget)


if __name__ == "__main__":
    asyncio.run(main())
