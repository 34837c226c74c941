"""Watchers of requests, in a process of their own: `python -m bench.watchers ADDRESS WATCHERS`.

Reads the ids of the requests from standard input, one a line, up to an empty line. Prints "ready" when each
watcher has the current state. Prints the number of messages since then when standard input ends.
"""

from __future__ import annotations

import asyncio
import random
import sys
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import uvloop

from spincycle_grpc.v1.request_manager_pb2 import WatchRequest, WatchResponse

STREAMS_A_CHANNEL = 100
PAUSE = 0.5
"""Seconds, on average, before a watcher tries again that the server refused.

All watchers start at once, so their requests may arrive slowly, and too many slow requests are refused.
"""

_METHOD = "/spincycle.v1.RequestManager/Watch"


@dataclass
class Watchers:
    """Counts what all watchers have received.

    Attributes:
        waiting: How many watchers do not have the current state yet.
        ready: Set when all have it.
        messages: The number of later messages.
    """

    waiting: int
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    messages: int = 0

    async def watch(self, channel: grpc.aio.Channel, request_id: str) -> None:
        """Watches one request. Parses messages only until the current state is complete, to cost little."""
        request = WatchRequest(request_id=request_id).SerializeToString()
        call: Any = channel.unary_stream(_METHOD)
        while True:
            stream = call(request)
            try:
                async for data in stream:
                    if WatchResponse.FromString(data).snapshot_complete:
                        break
                break
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
            await asyncio.sleep(random.uniform(0, 2 * PAUSE))
        self.waiting -= 1
        if not self.waiting:
            self.ready.set()
        async for _ in stream:
            self.messages += 1
        raise RuntimeError(f"the watch of {request_id} has ended: run longer requests")


async def _run(address: str, count: int) -> None:
    ids = [line.strip() for line in iter(sys.stdin.readline, "\n")]
    options = (("grpc.use_local_subchannel_pool", 1),)
    channels = [
        grpc.aio.insecure_channel(address, options=options) for _ in range(-(-count // STREAMS_A_CHANNEL))
    ]
    watchers = Watchers(count)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(watchers.watch(channels[number % len(channels)], ids[number % len(ids)]))
            for number in range(count)
        ]
        await watchers.ready.wait()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        print(watchers.messages, flush=True)
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    uvloop.run(_run(sys.argv[1], int(sys.argv[2])))
