"""What all tests may use."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from spincycle_server.grpc_settings import load_grpc
from tests.databases import SharedServers

# Before a test module loads gRPC: tests start commands beside its threads, as servers do.
load_grpc()

# A shell has what it starts in the background ignore Ctrl-C, and so has all that this starts: tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def database_servers() -> Iterator[SharedServers]:
    """Private servers of MariaDB and PostgreSQL, started when they are first asked for."""
    servers = SharedServers()
    yield servers
    servers.close()
