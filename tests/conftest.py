"""Settings and fixtures for all tests."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest
import structlog

from spincycle_server.grpc_settings import load_grpc
from tests.databases import SharedServers

# Tests start server processes hundreds of times. Without cached bytecode, each process compiles
# all its modules again, which takes longer than the rest of its start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Load gRPC before a test module does, because tests run commands beside gRPC's threads as servers do.
load_grpc()

# By default structlog renders the local variables of each stack frame. Megabytes of job output take seconds.
structlog.configure(
    processors=[
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    ]
)

# A shell makes background processes ignore SIGINT, and their children inherit that. Tests send SIGINT.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def database_servers() -> Iterator[SharedServers]:
    """Private MariaDB and PostgreSQL servers. Each starts when a test first needs it."""
    servers = SharedServers()
    yield servers
    servers.close()
