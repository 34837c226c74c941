"""Cross-origin resource sharing (CORS): which web pages may call the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ALLOWED_METHODS = ("GET", "HEAD", "POST", "PUT")
ALLOWED_HEADERS = (
    "Authorization",
    "Content-Encoding",
    "Content-Type",
    "Idempotency-Key",
    "Last-Event-ID",
    "Traceparent",
    "X-Request-Id",
)
EXPOSED_HEADERS = (
    "Location",
    "Retry-After",
    "WWW-Authenticate",
    "X-Spincycle-Next-Page-Token",
    "X-Spincycle-Reason",
    "X-Spincycle-Version",
)
PREFLIGHT_SECONDS = 600
"""How long a browser may cache the answer to a preflight request."""


def with_cors(app: Any, origins: Sequence[str]) -> Any:
    """Returns an ASGI app that adds CORS to another one.

    Args:
        app: The app that answers requests.
        origins: The origins whose pages may call, such as "https://ops.example.com"; "*" for all. Without
            origins, the app is returned unchanged.
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
