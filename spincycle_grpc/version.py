"""Versions: of the API that is spoken, and of this package."""

from __future__ import annotations

from importlib import metadata

API_VERSION = "1.0.12"
"""The version of the original whose API this is. Every HTTP response carries it."""


def package_version() -> str:
    """Returns the version of the installed package, or "unknown" when it is not installed."""
    try:
        return metadata.version("spincycle-grpc")
    except metadata.PackageNotFoundError:
        return "unknown"
