"""The `limits` of a sequence: the only parser of their keys, and every rule that they must follow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from spincycle_server.limit_bounds import MAX_HOLDERS, MAX_KEY
from spincycle_server.specs.model import LIMIT_POLICIES, LimitSpec

_PART = re.compile(r"([^{}]*)(?:\{([^{}]+)\})?")


class KeyPart(NamedTuple):
    """A part of a key: a text, then the value of an arg. The last part of a key may have no arg.

    Attributes:
        text: The text.
        arg: The name of the arg; "" if there is none.
    """

    text: str
    arg: str


def parse_key(key: str) -> tuple[KeyPart, ...] | None:
    """Returns the parts of a key such as `cluster/{cluster}`; None if a brace has no partner."""
    parts: list[KeyPart] = []
    place = 0
    while place < len(key):
        found = _PART.match(key, place)
        if found is None or found.end() == place:
            return None
        parts.append(KeyPart(found[1], found[2] or ""))
        place = found.end()
    return tuple(parts)


def bad_key(key: str) -> str:
    """Returns what is wrong with the text of a key, to follow after the key; "" if nothing is."""
    if not 0 < len(key) <= MAX_KEY:
        return f"has {len(key)} characters: a key must have 1 to {MAX_KEY}"
    if not key.isprintable():
        return "has a character that is not printable: use letters, digits and signs"
    return ""


def limit_problems(limit: LimitSpec) -> Iterator[tuple[str, str]]:
    """Yields the code and the message of each problem of a limit by itself."""
    if not limit.key:
        yield "MISSING_KEY", "this limit has no key: set one, such as 'cluster/{cluster}'"
    elif problem := bad_key(limit.key):
        yield "BAD_LIMIT_KEY", f"'key' {problem}"
    elif parse_key(limit.key) is None:
        yield (
            "BAD_LIMIT_KEY",
            f"'key' is '{limit.key}': write the name of an arg in braces, such as {{cluster}}",
        )
    if not 1 <= limit.max <= MAX_HOLDERS:
        yield "BAD_LIMIT_MAX", f"'max' is {limit.max}, must be 1 to {MAX_HOLDERS}"
    if limit.policy not in ("", *LIMIT_POLICIES):
        yield "BAD_LIMIT_POLICY", f"'policy' is '{limit.policy}', must be one of {', '.join(LIMIT_POLICIES)}"
