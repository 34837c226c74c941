"""The changes of one request, from the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.state import FINAL_STATES
from spincycle_grpc.v1.request_manager_pb2 import WatchResponse

if TYPE_CHECKING:
    from spincycle_server.store import Store

_INTERVAL = 0.5
"""Seconds between looks at the request."""


async def request_changes(store: Store, request_id: str, cursor: str) -> AsyncIterator[WatchResponse]:
    """Yields the state and the finished tries of a request, then its changes until it has ended.

    Raises:
        InvalidArgumentError: The cursor is malformed. Reason: BAD_CURSOR.
        NotFoundError: The request does not exist. Reason: REQUEST_NOT_FOUND.
    """
    sent = _sent(cursor)
    seen = b""
    while True:
        request = await store.get_request(request_id, with_job_chain=False)
        request.ClearField("args")
        request.ClearField("job_chain")
        tries = sorted(await store.get_log(request_id), key=lambda entry: entry.finished_at)[sent:]
        state = request.SerializeToString(deterministic=True)
        if tries or state != seen:
            for entry in tries:
                entry.ClearField("stdout")
                entry.ClearField("stderr")
            sent += len(tries)
            yield WatchResponse(cursor=str(sent), requests=[request], tries=tries, snapshot_complete=not seen)
            seen = state
        if request.state in FINAL_STATES:
            return
        await asyncio.sleep(_INTERVAL)


def _sent(cursor: str) -> int:
    if not cursor:
        return 0
    if not (cursor.isascii() and cursor.isdecimal()) or len(cursor) > 9:
        raise InvalidArgumentError(
            "the cursor is malformed: send the cursor of a message as it was received, or none",
            reason="BAD_CURSOR",
            field="cursor",
        )
    return int(cursor)
