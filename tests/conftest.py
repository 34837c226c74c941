"""What all tests may use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.databases import SharedServers


@pytest.fixture(scope="session")
def database_servers() -> Iterator[SharedServers]:
    """Private servers of MariaDB and PostgreSQL, started when they are first asked for."""
    servers = SharedServers()
    yield servers
    servers.close()
