"""Request Managers with different limits, for tests of HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.processes import running

MAX_BODY = 1_000_000


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Request Manager."""
    yield from _manager(tmp_path_factory)


@pytest.fixture(scope="module")
def hasty_manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Request Manager whose timeouts for clients are all short."""
    yield from _manager(
        tmp_path_factory,
        SPINCYCLE_SERVER_HEADER_TIMEOUT="2s",
        SPINCYCLE_SERVER_READ_TIMEOUT="2s",
        SPINCYCLE_SERVER_IDLE_TIMEOUT="2s",
    )


@pytest.fixture(scope="module")
def impatient_manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Request Manager with a short timeout for clients that do not read."""
    yield from _manager(tmp_path_factory, SPINCYCLE_SERVER_IDLE_TIMEOUT="2s")


@pytest.fixture(scope="module")
def small_manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Request Manager with a low limit of connections."""
    yield from _manager(tmp_path_factory, SPINCYCLE_SERVER_MAX_CONNECTIONS="4")


@pytest.fixture(scope="module", params=["https://ops.example.com", "*"])
def cors_manager(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """The address of a Request Manager that web pages may call, and their origins."""
    for address in _manager(tmp_path_factory, SPINCYCLE_SERVER_CORS_ORIGINS=request.param):
        yield address, request.param


def _manager(tmp_path_factory: pytest.TempPathFactory, **environment: str) -> Iterator[str]:
    environment = {
        "SPINCYCLE_SERVER_MAX_BODY": str(MAX_BODY),
        "SPINCYCLE_CLUSTER_OPEN": "true",
        **environment,
    }
    directory = tmp_path_factory.mktemp("manager")
    with running(
        "request-manager", "--http=127.0.0.1:0", directory=directory, environment=environment
    ) as server:
        yield server.address("request-manager", "http")
        broken = [event for event in server.events if event["level"] in ("error", "critical")]
        assert not broken
