"""Loads the library of the log without what the servers never use of it."""

from __future__ import annotations

import sys


def load_structlog() -> None:
    """Loads structlog. Call it before anything else imports it.

    If Rich is installed, structlog loads it for tracebacks that show the values of local variables. The log
    has no such tracebacks, because the values include passwords. Loading Rich took a tenth of the CPU time of
    the start of a server.
    """
    if "rich" not in sys.modules:
        sys.modules["rich"] = None  # type: ignore[assignment]  # Python's way to say that it cannot be imported
        try:
            import structlog  # noqa: F401 (it is imported for its effect on sys.modules)
        finally:
            del sys.modules["rich"]
