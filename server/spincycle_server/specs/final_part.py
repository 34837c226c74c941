"""The rules of `finally` that the linter and the chain builder share."""

from __future__ import annotations

DEFAULT_FINAL_TIMEOUT = "30m"
"""How long the nodes of a `finally` may run if the spec does not say."""

FINAL_LABEL = "finally"
"""The name of a `finally` in paths of jobs."""
