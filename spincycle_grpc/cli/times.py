"""Times and durations as `spinc` shows them. A time always has a zone, because operators share them."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo

from google.protobuf.timestamp_pb2 import Timestamp

from spincycle_grpc.duration import format_duration

_SECOND = 1_000_000_000
_AGES = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
"""The units of ages, in seconds."""


def time_text(time: Timestamp | int, zone: tzinfo | None = None) -> str:
    """Returns a time to the second, with its zone: "2026-11-29 13:15:12 +01:00", or "... UTC".

    Args:
        time: A timestamp, or nanoseconds since the Unix epoch. Zero: the text is empty.
        zone: The zone. None: the local one.
    """
    seconds = nanoseconds_of(time) // _SECOND
    if not seconds:
        return ""
    try:
        moment = datetime.fromtimestamp(seconds, UTC).astimezone(zone)
    except (ValueError, OverflowError, OSError):  # The calendar does not have this time.
        return "?"
    offset = moment.isoformat(timespec="seconds")[len("2026-11-29T13:15:12") :]
    return f"{moment:%Y-%m-%d %H:%M:%S} {offset if moment.utcoffset() else 'UTC'}"


def age_text(time: Timestamp | int, now: int) -> str:
    """Returns how long ago a time was, with its two largest units: "2h5m", "3d4h". Zero: the text is empty.

    Args:
        time: A timestamp, or nanoseconds since the Unix epoch.
        now: The current time in nanoseconds since the Unix epoch.
    """
    nanoseconds = nanoseconds_of(time)
    if not nanoseconds:
        return ""
    left = max(0, now - nanoseconds) // _SECOND
    counts: list[str] = []
    for size, unit in _AGES:
        count, left = divmod(left, size)
        if count or counts:
            counts.append(f"{count}{unit}")
    return "".join(counts[:2]) or "0s"


def span_text(nanoseconds: int) -> str:
    """Returns a duration with few digits, for example "35ms", "1.5s" or "2m10s"."""
    if nanoseconds <= 0:
        return "0s"
    unit = next(
        (
            unit
            for limit, unit in ((_SECOND // 1000, 1000), (_SECOND, 10**6), (10 * _SECOND, 10**8))
            if nanoseconds < limit
        ),
        _SECOND,
    )
    return format_duration(nanoseconds // unit * unit)


def nanoseconds_of(time: Timestamp | int) -> int:
    """Returns a time as nanoseconds since the Unix epoch. A timestamp that is not set is zero."""
    return time if isinstance(time, int) else time.seconds * _SECOND + time.nanos
