"""How long to wait between attempts of a delivery, and when to give up."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FIRST_PAUSE = 5.0
"""Seconds before the second attempt. Each further pause is twice as long."""

LONGEST_PAUSE = 3600.0
"""Seconds of the longest pause, also of one that a receiver asks for."""

MAX_ATTEMPTS = 24
"""The attempts of a delivery, which take about 14 hours. Then it is given up."""

JITTER = 0.2
"""The largest fraction by which a pause is longer at random, so that attempts of one outage spread."""


def pause_after(attempts: int, retry_after: float = 0.0) -> float | None:
    """Returns the seconds until the next attempt; None to give up.

    Args:
        attempts: The attempts so far, at least 1.
        retry_after: The seconds that the receiver asks for.
    """
    if attempts >= MAX_ATTEMPTS:
        return None
    pause = min(FIRST_PAUSE * 2.0 ** (attempts - 1), LONGEST_PAUSE)
    pause = max(pause, min(retry_after, LONGEST_PAUSE))
    return pause * random.uniform(1, 1 + JITTER)  # noqa: S311 (spreads attempts, protects no secret)


def seconds_of_retry_after(value: str | None, now: datetime | None = None) -> float:
    """Returns the seconds of a Retry-After header, which has seconds or a date; 0 without a valid one.

    Args:
        value: The value of the header; None without it.
        now: The time, by which a date counts; None for the time now.
    """
    if value is None:
        return 0.0
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max((at - (now or datetime.now(UTC))).total_seconds(), 0.0)
