"""Names that say that a value is secret."""

from __future__ import annotations

import re

_SECRET_NAME = re.compile("passw|secret|token|credential|private", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Returns whether the name of an arg says that its value must not be shown."""
    return _SECRET_NAME.search(name) is not None
