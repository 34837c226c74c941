"""Which web pages may call: the answers to browsers that ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ALLOWED_METHODS = ("GET", "HEAD", "POST", "PUT")
ALLOWED_HEADERS = ("Authorization", "Content-Encoding", "Content-Type", "Idempotency-Key")
EXPOSED_HEADERS = ("Location", "Retry-After", "X-Spincycle-Version")
PREFLIGHT_SECONDS = 600
"""How long a browser may remember what it was told."""


def with_cors(app: Any, origins: Sequence[str]) -> Any:
    """Returns an ASGI app that lets pages of some origins call another.

    Args:
        app: What answers.
        origins: The origins, as "https://ops.example.com"; "*" for all; none: the app as it is.
    """
    if not origins:
        return app
    from starlette.middleware.cors import CORSMiddleware

    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=ALLOWED_METHODS,
        allow_headers=ALLOWED_HEADERS,
        expose_headers=EXPOSED_HEADERS,
        max_age=PREFLIGHT_SECONDS,
    )
