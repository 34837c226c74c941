"""What a Request Manager tells of itself: its configuration without secrets, and whether it works."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.v1.installation_pb2 import ConfigurationOption, HealthCheck
from spincycle_grpc.v1.request_manager_pb2 import GetConfigurationResponse
from spincycle_grpc.version import API_VERSION, package_version

if TYPE_CHECKING:
    from spincycle_server.request_manager.audit import AuditLog
    from spincycle_server.store import Store


class ShownOption(NamedTuple):
    """An option, with its value as text without secrets, and the source of the value."""

    name: str
    value: str
    source: str


class SelfDescription:
    """Describes this Request Manager to administrators.

    Args:
        store: The database.
        audit: The audit log.
        options: The effective options.
        database_timeout: Seconds that the database may take to answer.
    """

    def __init__(
        self, store: Store, audit: AuditLog, options: Sequence[ShownOption], *, database_timeout: float
    ) -> None:
        self._store = store
        self._audit = audit
        self._options = sorted(options)
        self._database_timeout = database_timeout

    async def describe(self) -> GetConfigurationResponse:
        """Returns the configuration, the versions and the health. It never fails because of bad health."""
        return GetConfigurationResponse(
            version=package_version(),
            api_version=API_VERSION,
            database=self._store.database_kind,
            options=[ConfigurationOption(**option._asdict()) for option in self._options],
            health=[await self._database(), await self._runners(), self._audit_log()],
        )

    async def _database(self) -> HealthCheck:
        try:
            async with asyncio.timeout(self._database_timeout):
                await self._store.ping()
        except TimeoutError:
            problem = f"it does not answer within {self._database_timeout:g} s"
        except SpinCycleError as error:
            problem = error.message
        else:
            return HealthCheck(name="database", healthy=True, message="it answers")
        return HealthCheck(name="database", healthy=False, message=problem)

    async def _runners(self) -> HealthCheck:
        name = "job runners"
        try:
            async with asyncio.timeout(self._database_timeout):
                live = await self._store.live_runners()
        except (TimeoutError, SpinCycleError):
            return HealthCheck(
                name=name, healthy=False, message="unknown, because the database does not answer"
            )
        accepting = sum(not one.draining for one in live)
        message = f"{len(live)} alive, {accepting} of them accept requests"
        return HealthCheck(name=name, healthy=accepting > 0, message=message)

    def _audit_log(self) -> HealthCheck:
        name = "audit log"
        if not self._audit.is_on:
            return HealthCheck(name=name, healthy=True, message="off, because users are not authenticated")
        if self._audit.is_failing:
            message = "denied calls cannot be recorded now; they are kept and tried again"
            return HealthCheck(name=name, healthy=False, message=message)
        return HealthCheck(name=name, healthy=True, message="on")
