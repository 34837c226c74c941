"""How tests of real servers reach them. A module brings the fixture `server`, as it needs it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.processes import ServerProcess
from tests.limits import ANSWER


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    """Calls the Request Manager of the module's server."""
    with httpx.Client(
        base_url=f"http://{server.address('request-manager', 'http')}", timeout=ANSWER
    ) as client:
        yield client
