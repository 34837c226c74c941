"""One timer fails the streams whose clients do not read, and no others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from spincycle_grpc.errors import ResourceExhaustedError
from spincycle_server.rpc import stream_sends
from spincycle_server.rpc.stream_sends import StreamSends
from tests.limits import STEP


class Client:
    """Makes room for a message when the test says so."""

    def __init__(self) -> None:
        self.has_room = asyncio.Event()
        self.received: list[bytes] = []

    async def write(self, data: bytes) -> None:
        await self.has_room.wait()
        self.received.append(data)


def begin(sends: StreamSends, client: Client) -> asyncio.Task[None]:
    context: Any = client
    return asyncio.create_task(sends.send(context, b"message"))


async def refused(sending: asyncio.Task[None]) -> str:
    with pytest.raises(ResourceExhaustedError) as caught:
        async with asyncio.timeout(STEP):
            await sending
    assert not sending.cancelling()
    return caught.value.reason


async def test_only_the_sends_that_last_too_long_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_sends, "SEND_TIMEOUT", 0.05)
    sends, stalled, reading = StreamSends(), [Client(), Client()], Client()
    reading.has_room.set()
    first = begin(sends, stalled[0])
    await asyncio.sleep(0.03)
    second = begin(sends, stalled[1])  # The timer of the first one is too early for it.
    while not (first.done() and second.done()):
        await begin(sends, reading)
        await asyncio.sleep(0)
    assert [await refused(first), await refused(second)] == ["STREAM_NOT_READ"] * 2
    assert not any(client.received for client in stalled)
    await begin(sends, reading)


async def test_a_stream_that_is_cancelled_while_it_sends_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    sends, client = StreamSends(), Client()
    sending = begin(sends, client)
    await asyncio.sleep(0)
    sending.cancel()
    await asyncio.wait({sending})
    assert sending.cancelled()
    monkeypatch.setattr(stream_sends, "SEND_TIMEOUT", 0.0)
    both = begin(StreamSends(), client)
    await asyncio.sleep(0)
    both.cancel()  # Beside the timer: the task must still end as its caller wants.
    both.cancel()
    await asyncio.wait({both})
    assert both.cancelled()
