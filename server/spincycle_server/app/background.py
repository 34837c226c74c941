"""Background tasks of a server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Coroutine
from typing import Any

import structlog

logger = structlog.get_logger(__name__)


def run_in_background(stack: contextlib.AsyncExitStack, name: str, work: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine as a task until the stack closes.

    If the coroutine raises, the server shuts down, because it is useless without its background tasks.

    Args:
        stack: Cancels the task when it closes, and waits for its end.
        name: The name of the task, also in the log.
        work: The coroutine.
    """
    task = asyncio.create_task(work, name=name)

    def on_done(done: asyncio.Task[None]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            logger.critical("a background task failed: shutting down", part=name, exc_info=error)
            os.kill(os.getpid(), signal.SIGTERM)

    async def cancel() -> None:
        task.cancel()
        await asyncio.wait({task})

    task.add_done_callback(on_done)
    stack.push_async_callback(cancel)
