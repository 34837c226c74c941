"""Settings and fixtures for all tests."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from spincycle_server.garbage_collection import WITH_RUNNER, collect_not_yet, collect_seldom
from spincycle_server.grpc_settings import load_grpc
from tests.databases import DATABASES, SharedServers
from tests.public_authorities import replace_by_one

# Tests start server processes hundreds of times. Without cached bytecode, each process compiles
# all its modules again, which takes longer than the rest of its start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Hypothesis measures seconds: how long an example takes, and how long it takes to make one. A busy machine
# exceeds such limits although nothing is wrong. `timeout` in pyproject.toml ends a test that hangs.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Load gRPC before a test module does, because tests run commands beside gRPC's threads as servers do.
load_grpc()

replace_by_one()

# A shell makes background processes ignore SIGINT, and their children inherit that. Tests send SIGINT.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# The default of structlog prints each traceback with all local variables, which takes a second or more.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

# Collecting the tests makes a million objects and no garbage.
collect_not_yet()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option of `make interop ARGS=--short` and `make kit ARGS=--short`."""
    parser.addoption("--short", action="store_true", help="leave out the tests that CI has no time for")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the tests with the marker `full`, if the run is short."""
    if not config.getoption("--short"):
        return
    left_out = [item for item in items if item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not item.get_closest_marker("full")]


def pytest_collection_finish() -> None:
    """Collects garbage from now on as a server does, and never among the tests."""
    collect_seldom(WITH_RUNNER)


@pytest.fixture(scope="session")
def database_servers() -> Iterator[SharedServers]:
    """Private MariaDB and PostgreSQL servers. Each starts when a test first needs it."""
    servers = SharedServers()
    yield servers
    servers.close()


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, database_servers: SharedServers, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind."""
    return database_servers.url(request.param, tmp_path)


@pytest.fixture(params=DATABASES)
def migrated_url(
    request: pytest.FixtureRequest, database_servers: SharedServers, tmp_path: Path
) -> Iterator[str]:
    """The URL of a database with the present schema and no rows, of each kind."""
    with database_servers.migrated(request.param, tmp_path) as url:
        yield url
