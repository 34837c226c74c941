"""A process that runs servers: begun, told to end, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import structlog
import uvloop

from spincycle_server.config import Config
from spincycle_server.listening import Address
from spincycle_server.logs import configure_logs

logger = structlog.get_logger(__name__)

JOB_RUNNER_ADDRESS = Address("127.0.0.1", 32307)


def run(serve: Callable[[Config], Coroutine[Any, Any, None]], config: Config) -> None:
    """Runs a server until it is told to end.

    Raises:
        SpinCycleError: It cannot start.
    """
    configure_logs(config.log_level, config.log_format)
    logger.info("configuration", **config.shown())
    _collect_less_often()
    uvloop.run(serve(config))
    _end_in_spite_of_threads()


def _collect_less_often() -> None:
    """Has the collector of reference cycles leave alone what is there for good, and look less often.

    Nearly all garbage goes by reference counts; at the default, a tenth of the time went into looking.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _end_in_spite_of_threads() -> None:
    """Ends the process at once if a thread hangs in a user's code, which would keep it for ever."""
    hanging = [
        thread.name
        for thread in threading.enumerate()
        if thread is not threading.main_thread() and not thread.daemon
    ]
    if hanging:
        logger.warning("ended in spite of threads that hang", threads=hanging)
        sys.stderr.flush()
        os._exit(0)


async def serve_request_manager(config: Config) -> None:
    """Runs a Request Manager until SIGTERM or SIGINT."""
    from spincycle_server.app.request_manager import request_manager

    with _told_to_end() as told:
        async with request_manager(config):
            await told.wait()


async def serve_job_runner(config: Config) -> None:
    """Runs a Job Runner until SIGTERM or SIGINT."""
    from spincycle_server.app.job_runner import job_runner

    address = config.server_addr or JOB_RUNNER_ADDRESS
    with _told_to_end() as told:
        async with job_runner(config, address, config.server_grpc, config.request_manager_addresses):
            await told.wait()


async def serve_both(config: Config) -> None:
    """Runs a Request Manager and a Job Runner until SIGTERM or SIGINT.

    The runner ends first, so that the Request Manager takes in what it has suspended.
    """
    from spincycle_server.app.job_runner import job_runner
    from spincycle_server.app.request_manager import request_manager

    with _told_to_end() as told:
        async with (
            request_manager(config) as grpc_address,
            job_runner(config, config.job_runner_addr, config.job_runner_grpc, [str(grpc_address)]),
        ):
            await told.wait()


@contextlib.contextmanager
def _told_to_end() -> Iterator[asyncio.Event]:
    """Gives an event that SIGTERM and SIGINT set; the second of them ends the process at once."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell(number: signal.Signals) -> None:
        if told.is_set():
            logger.warning("ended at once by a second signal", signal=number.name)
            os._exit(128 + number)
        logger.info("ending", signal=number.name)
        told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, tell, number)
    try:
        yield told
    finally:
        logger.info("ended")
