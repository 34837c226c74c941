"""Runs reads in threads, and retries them while the database is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

import structlog
from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine

from spincycle_grpc.backoff import Backoff
from spincycle_grpc.errors import SpinCycleError
from spincycle_server.database.troubles import Trouble, translate, trouble_of
from spincycle_server.telemetry import catalogue
from spincycle_server.telemetry.instruments import Histograms
from spincycle_server.telemetry.limits import DATABASE_READS, LimitUse

logger = structlog.get_logger(__name__)

_Parameters = ParamSpec("_Parameters")
_Answer = TypeVar("_Answer")

_PING = text("SELECT 1")
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.5


class ReadPool:
    """A pool of threads that read. If all threads are busy, a read waits for one.

    Args:
        engine: Connects to the database. It must allow one connection more than there are threads, so that a
            ping never waits for a read.
        threads: The number of threads.
        patience: Seconds to wait for the database to come back.

    Attributes:
        seconds: The time that reads take, with the wait for a thread.
    """

    def __init__(self, engine: Engine, *, threads: int, patience: float) -> None:
        self._engine = engine.execution_options(readonly=True)
        self._patience = patience
        self._threads = threads
        self._unfinished = 0
        self.seconds = Histograms(catalogue.READ_SECONDS)
        self._seconds = self.seconds.of()
        self._is_away = False
        self._readers = ThreadPoolExecutor(threads, thread_name_prefix="store-reader")
        self._pinger = ThreadPoolExecutor(1, thread_name_prefix="store-ping")

    async def read(
        self,
        read: Callable[Concatenate[Connection, _Parameters], _Answer],
        *arguments: _Parameters.args,
        **named: _Parameters.kwargs,
    ) -> _Answer:
        """Calls a function with a connection and its arguments in a thread, and returns its answer.

        Raises:
            UnavailableError: The database cannot be used now.
            SpinCycleError: The function raised it.
        """
        loop = asyncio.get_running_loop()
        started = time.monotonic()
        self._unfinished += 1
        try:
            return await loop.run_in_executor(self._readers, self._read_now, read, arguments, named)
        finally:
            self._unfinished -= 1
            self._seconds.observe(time.monotonic() - started)

    def limits(self) -> Iterable[LimitUse]:
        """Returns the number of threads, and how many reads run or wait."""
        return (LimitUse(DATABASE_READS, self._threads, self._unfinished),)

    async def read_beside(
        self,
        read: Callable[Concatenate[Connection, _Parameters], _Answer],
        *arguments: _Parameters.args,
        **named: _Parameters.kwargs,
    ) -> _Answer:
        """Reads as `read` does, but in the thread of pings, once, and without waiting for other reads.

        Raises:
            UnavailableError: The database cannot be used now.
            SpinCycleError: The function raised it.
        """
        work = partial(self._read_beside_now, read, arguments, named)
        return await asyncio.get_running_loop().run_in_executor(self._pinger, work)

    async def ping(self) -> None:
        """Raises if the database cannot be used now. Does not wait for running reads."""
        await asyncio.get_running_loop().run_in_executor(self._pinger, self._ping_now)

    async def close(self) -> None:
        """Waits for running reads, then closes all connections."""
        await asyncio.to_thread(self._readers.shutdown)
        await asyncio.to_thread(self._pinger.shutdown)
        self._engine.dispose()

    def _ping_now(self) -> None:
        try:
            with self._engine.connect() as connection:
                connection.execute(_PING)
        except Exception as error:
            raise translate(error) from error

    def _read_beside_now(
        self, read: Callable[..., _Answer], arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> _Answer:
        try:
            with self._engine.connect() as connection:
                return read(connection, *arguments, **named)
        except SpinCycleError:
            raise
        except Exception as error:
            raise _failure(error) from error

    def _read_now(
        self, read: Callable[..., _Answer], arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> _Answer:
        """Reads, and retries if the error may pass: reads can be repeated safely."""
        deadline = time.monotonic() + (0 if self._is_away else self._patience)
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            try:
                with self._engine.connect() as connection:
                    answer = read(connection, *arguments, **named)
            except SpinCycleError:
                raise
            except Exception as error:
                trouble = trouble_of(error)
                if trouble not in (Trouble.AWAY, Trouble.CONFLICT) or time.monotonic() > deadline:
                    self._is_away = trouble is Trouble.AWAY
                    raise _failure(error) from error
            else:
                self._is_away = False
                return answer
            time.sleep(backoff.next())


def _failure(error: Exception) -> SpinCycleError:
    """Translates an error. If it says that the log has the reason, the reason is logged."""
    translated = translate(error)
    if trouble_of(error) in (Trouble.FAULT, Trouble.UNUSABLE):
        logger.error("read failed", reason=translated.reason, exc_info=error)
    return translated
