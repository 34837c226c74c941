"""The versions of the API and of this package."""

from __future__ import annotations

import functools
from importlib import metadata

API_VERSION = "1.0.12"
"""The version of the original Spin Cycle's API that the servers implement. Every HTTP response has it."""


@functools.cache  # A running server has no file descriptor left at times, and this needs one.
def package_version() -> str:
    """Returns the version of the installed package, or "unknown" if it is not installed."""
    try:
        return metadata.version("spincycle-grpc")
    except metadata.PackageNotFoundError:
        return "unknown"
