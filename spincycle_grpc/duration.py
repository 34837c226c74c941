"""Parses and formats durations as in specs and messages ("1h30m", "1.5s")."""

from __future__ import annotations

import re

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,
    "\u03bcs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DAY = 24 * _UNITS["h"]
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h|d)", re.ASCII)
_LONGEST = 2**63 - 1


def parse_duration(text: str, *, days: bool = False) -> int:
    """Returns a duration in nanoseconds.

    A duration is a sequence of numbers with units (ns, us, ms, s, m or h). The numbers may have fractions.
    "0" needs no unit.

    Args:
        text: The duration.
        days: Whether the unit d, 24 hours, is allowed. Specs and messages do not have it.

    Raises:
        ValueError: The text is not a duration, or the duration exceeds 2^63-1 nanoseconds.
    """
    if text == "0":
        return 0
    position = total = 0
    while position < len(text) and (part := _PART.match(text, position)):
        if part[2] == "d" and not days:
            break
        whole, _, fraction = part[1].partition(".")
        unit = _UNITS.get(part[2], _DAY)
        total += int(whole or 0) * unit
        total += int(fraction or 0) * unit // 10 ** len(fraction)
        position = part.end()
    if position == 0 or position < len(text):
        raise ValueError(f"must be a duration, for example {'90d, 36h' if days else '500ms, 1.5s'} or 1h30m")
    if total > _LONGEST:
        raise ValueError("must be a duration of at most 292 years")
    return total


def format_duration(nanoseconds: int) -> str:
    """Formats a duration, for example "1h30m0s", "30s", "1.5s", "50ms" or "0s".

    A duration of one second or more is written in hours, minutes and seconds, without leading zero parts. A
    shorter duration is written in the largest unit in which it is at least 1.
    """
    if nanoseconds == 0:
        return "0s"
    if nanoseconds < _UNITS["s"]:
        unit = next(name for name in ("ms", "us", "ns") if nanoseconds >= _UNITS[name])
        return _decimal(nanoseconds, _UNITS[unit]) + ("\u00b5s" if unit == "us" else unit)
    minutes, seconds = divmod(nanoseconds, _UNITS["m"])
    hours, minutes = divmod(minutes, 60)
    text = _decimal(seconds, _UNITS["s"]) + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _decimal(nanoseconds: int, unit: int) -> str:
    whole, rest = divmod(nanoseconds, unit)
    if not rest:
        return str(whole)
    return f"{whole}.{rest:0{len(str(unit)) - 1}d}".rstrip("0")
