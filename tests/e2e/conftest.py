"""Fixtures for tests of real servers. Each module defines its own fixture `server`."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.processes import ServerProcess
from tests.limits import ANSWER


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    """A client of the Request Manager that the module's fixture `server` runs."""
    with httpx.Client(
        base_url=f"http://{server.address('request-manager', 'http')}", timeout=ANSWER
    ) as client:
        yield client
