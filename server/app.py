"""Puts the servers together from their parts, starts them, and ends them in order.

This is the one place that knows all rooms. Each server is a context: entering it starts its
parts from the inside out, leaving it ends them the other way round. First it takes no more
work, then it finishes what is in flight, then it closes what that needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
import uvloop

from server.config import Address, Config, advertised
from server.logs import configure_logs

logger = structlog.get_logger(__name__)

REQUEST_MANAGER_ADDRESS = Address("127.0.0.1", 32308)
JOB_RUNNER_ADDRESS = Address("127.0.0.1", 32307)


def run(serve: Callable[[Config], Awaitable[None]], config: Config) -> None:
    """Runs a server until it is told to end.

    Raises:
        SpinCycleError: It cannot start.
    """
    configure_logs(config.log_level, config.log_format)
    logger.info("configuration", **config.shown())
    uvloop.run(serve(config))


async def serve_request_manager(config: Config) -> None:
    """Runs a Request Manager until SIGTERM or SIGINT."""
    async with _until_signal() as told_to_end, request_manager(config):
        await told_to_end.wait()


async def serve_job_runner(config: Config) -> None:
    """Runs a Job Runner until SIGTERM or SIGINT."""
    ...
