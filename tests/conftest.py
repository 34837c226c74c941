"""What all tests may use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from server.grpc_settings import load_grpc
from tests.databases import SharedServers

# Before a test module loads gRPC: tests start commands beside its threads, as servers do.
load_grpc()


@pytest.fixture(scope="session")
def database_servers() -> Iterator[SharedServers]:
    """Private servers of MariaDB and PostgreSQL, started when they are first asked for."""
    servers = SharedServers()
    yield servers
    servers.close()
