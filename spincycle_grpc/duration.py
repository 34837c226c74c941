"""Durations as specs write them ("1h30m", "1.5s") and as messages show them."""

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
    """Returns the nanoseconds of a duration.

    It is a row of numbers, each with its unit (ns, us, ms, s, m or h) and perhaps a fraction;
    "0" needs no unit.

    Args:
        text: The duration.
        days: Whether d is a unit too, of 24 hours. Specs and the wire do not know it.

    Raises:
        ValueError: The text is no duration, or longer than 2^63-1 nanoseconds; says what it must be.
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
        raise ValueError(f"must be a duration, as {'90d, 36h' if days else '500ms, 1.5s'} or 1h30m")
    if total > _LONGEST:
        raise ValueError("must be a duration of at most 292 years")
    return total


def format_duration(nanoseconds: int) -> str:
    """Returns a duration as text: "1h30m0s", "30s", "1.5s", "50ms", "0s".

    From one second on it has hours, minutes and seconds, from the first that is not zero;
    below that it has the largest unit that leaves a whole part.
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
