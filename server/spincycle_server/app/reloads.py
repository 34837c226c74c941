"""What a server loads again on SIGHUP: specs, certificates and the level of its log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from spincycle_grpc.errors import SpinCycleError
from spincycle_server.config import LoadedConfig
from spincycle_server.logs import set_level

logger = structlog.get_logger(__name__)


class Reloads:
    """Loads things again when it is asked to. What has errors stays as it is.

    Args:
        loaded: The configuration, with its sources.
    """

    def __init__(self, loaded: LoadedConfig) -> None:
        self._loaded = loaded
        self._actions: list[tuple[str, Callable[[], Awaitable[None]]]] = [("log.level", self._reload_level)]
        self._asked = asyncio.Event()

    def add(self, what: str, action: Callable[[], Awaitable[None]]) -> None:
        """Adds an action, which loads something again.

        Args:
            what: Its name in the log.
            action: Raises SpinCycleError if there is an error, and then changes nothing.
        """
        self._actions.append((what, action))

    def ask(self) -> None:
        """Lets `run` load everything again. Returns at once."""
        self._asked.set()

    async def run(self) -> None:
        """Loads everything again each time it is asked to, until it is cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            for what, action in self._actions:
                try:
                    await action()
                except SpinCycleError as error:
                    logger.error(
                        "not reloaded because of errors: the earlier version stays in use",
                        what=what,
                        error=str(error),
                    )
                except Exception:
                    logger.exception("not reloaded: the earlier version stays in use", what=what)

    async def _reload_level(self) -> None:
        level = await asyncio.to_thread(self._loaded.newest_log_level)
        set_level(level)
        logger.info("log level set", to=level)
