"""Times as text for people and logs."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_text(microseconds: int) -> str:
    """Returns a time in microseconds since the Unix epoch as text in UTC: 2026-11-23T15:47:18Z."""
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
