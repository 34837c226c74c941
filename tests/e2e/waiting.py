"""How end-to-end tests wait for servers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx

from tests.limits import REQUEST_END

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.02, 0.1
"""Seconds between two looks. Most looks are calls, which cost the server CPU time too."""


def eventually(look: Callable[[], Any], limit: float = REQUEST_END) -> Any:
    """Polls a function until it returns a true value, and returns that value."""
    deadline = time.monotonic() + limit
    pause = _SHORTEST_PAUSE
    while not (answer := look()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(pause)
        pause = min(1.3 * pause, _LONGEST_PAUSE)
    return answer


def wait_state(http: httpx.Client, request_id: str, *states: int) -> dict[str, Any]:
    """Waits until a request is in one of the states, and returns the request."""

    def look() -> dict[str, Any] | None:
        request: dict[str, Any] = http.get(f"/api/v1/requests/{request_id}").json()
        return request if request["state"] in states else None

    found: dict[str, Any] = eventually(look)
    return found
