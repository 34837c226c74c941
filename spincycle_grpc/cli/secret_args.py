"""Hides the args of a request that look secret, for reports that leave the company's servers."""

from __future__ import annotations

import re
from collections.abc import Mapping

_HIDDEN = "(hidden)"
_SECRET = re.compile(
    r"passw(or)?d|passphrase|secret|token|credential|(api|private|access)[-_]?key", re.IGNORECASE
)


def without_secrets(name: str, value: object) -> object:
    """Returns the value of an arg, with "(hidden)" for what a name such as `password` or `api_key` marks.

    Args:
        name: The name of the arg, or of a field in it.
        value: A JSON value.
    """
    if _SECRET.search(name):
        return _HIDDEN
    if isinstance(value, Mapping):
        return {key: without_secrets(key, one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_secrets("", one) for one in value]
    return value
