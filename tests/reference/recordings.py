"""The recordings of the original, and functions to compare with them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"
SPECS = DATA / "specs"

EXCHANGES: list[dict[str, Any]] = json.loads((DATA / "http.json").read_text())
"""One object per HTTP exchange, in order."""

CASES: list[dict[str, Any]] = json.loads((DATA / "requests.json").read_text())
"""One object per request: its creation and its outcome."""

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
_REQUEST_ID = re.compile(r"[0-9a-v]{20}")
_JOB_ID = re.compile(r"[0-9A-Za-z]{4}")
_ADDRESS = re.compile(r"http://[\w.]+:\d+")


def exchange(name: str) -> dict[str, Any]:
    """Returns the exchange of this name."""
    return next(one for one in EXCHANGES if one["name"] == name)


def without_ids_and_times(value: Any, key: str = "") -> Any:
    """Returns a body with every id, time and address replaced by what it is, and job maps as sorted lists."""
    if isinstance(value, dict):
        if key in ("jobs", "adjacencyList") and all(_JOB_ID.fullmatch(name) for name in value):
            parts = [without_ids_and_times(part) for part in value.values()]
            return sorted(parts, key=lambda part: json.dumps(part, sort_keys=True))
        return {
            _REQUEST_ID.sub("<request>", name): without_ids_and_times(part, name)
            for name, part in value.items()
        }
    if isinstance(value, list):
        return [without_ids_and_times(part) for part in value]
    if isinstance(value, int) and key in ("startedAt", "finishedAt") and value > 0:
        return "<time>"
    if isinstance(value, str):
        if key in ("jobId", "sequenceId", "id") and _JOB_ID.fullmatch(value):
            return "<job>"
        if not key and _JOB_ID.fullmatch(value):
            return "<job>"
        return _ADDRESS.sub("<address>", _REQUEST_ID.sub("<request>", _TIME.sub("<time>", value)))
    return value


def log_multiset(entries: list[dict[str, Any]]) -> list[str]:
    """Returns what a job log says but for ids and times, sorted, to be compared."""
    fields = ("name", "type", "try", "state", "exit", "error", "stdout", "stderr")
    return sorted(json.dumps({field: entry[field] for field in fields}) for entry in entries)
