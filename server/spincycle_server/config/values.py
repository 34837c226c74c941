"""Parses the texts of options.

Each function raises ValueError with a message such as "must be true or false".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from spincycle_grpc.duration import parse_duration
from spincycle_server.capabilities import bad_label
from spincycle_server.listening import Address

_SIZE = re.compile(r"(\d+)\s*([kmg]i?b?)?", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}

MAX_OUTPUT = 4 * 1024 * 1024
"""The maximum of `job_runner.max_output`, which limits stdout and stderr separately, in bytes."""

MAX_CHAINS = 100_000
"""The maximum of `job_runner.max_chains`. Request Managers refuse a runner that reports more."""

MAX_WORKERS = 64
"""The maximum of `server.workers`."""

MAX_SESSION_LIFETIME = 30 * 86_400.0
"""The maximum of `auth.session_lifetime` in seconds. The keys of sessions are kept for longer."""

MAX_CRASHES = 9
"""The maximum of `job_runner.max_crashes`. The store keeps one more, because the newest may not count."""


def parse_optional_address(text: str) -> Address | None:
    """Returns an address; None for an empty text."""
    return Address.parse(text) if text else None


def parse_seconds(text: str) -> float:
    """Returns the seconds of a duration such as "1m30s"."""
    return parse_duration(text) / 1e9


def parse_session_lifetime(text: str) -> float:
    """Returns the seconds of a duration that a session may last."""
    seconds = parse_seconds(text)
    if not 60 <= seconds <= MAX_SESSION_LIFETIME:
        raise ValueError("must be from 1m to 720h, because a longer session is not sealed")
    return seconds


def parse_origin(text: str) -> str:
    """Returns an origin such as "https://spin.example.com", without a slash at its end; "" for ""."""
    origin = text.removesuffix("/")
    if not origin:
        return ""
    parts = urlsplit(origin)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or origin != f"{parts.scheme}://{parts.netloc}"
    ):
        raise ValueError("must be a URL without a path, such as https://spin.example.com")
    return origin.lower()


def parse_count(text: str) -> int:
    """Returns a whole number that is at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise ValueError("must be a whole number, at least 1")
    return int(text)


def parse_worker_count(text: str) -> int:
    """Returns a number of worker processes."""
    count = parse_count(text)
    if count > MAX_WORKERS:
        raise ValueError(f"must be at most {MAX_WORKERS}")
    return count


def parse_chain_count(text: str) -> int:
    """Returns a number of job chains that a runner can report."""
    count = parse_count(text)
    if count > MAX_CHAINS:
        raise ValueError(f"must be at most {MAX_CHAINS}, because a runner reports all of its chains at once")
    return count


def parse_crash_count(text: str) -> int:
    """Returns a number of crashes that the store remembers."""
    count = parse_count(text)
    if count > MAX_CRASHES:
        raise ValueError(f"must be at most {MAX_CRASHES}, because no more crashes are stored")
    return count


def parse_size(text: str) -> int:
    """Returns the bytes of a size such as "1MiB"."""
    match = _SIZE.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise ValueError("must be a size in bytes, such as 1048576 or 1MiB")
    return int(match[1]) * _SIZE_UNITS[(match[2] or "").lower()[:1]]


def parse_output_size(text: str) -> int:
    """Returns a size that the report of a try can carry."""
    size = parse_size(text)
    if size > MAX_OUTPUT:
        raise ValueError(
            f"must be at most {MAX_OUTPUT} bytes, because each report of a try carries the output"
        )
    return size


def parse_truth(text: str) -> bool:
    """Returns whether a text means true."""
    lowered = text.lower()
    if lowered in ("true", "yes", "on", "1"):
        return True
    if lowered in ("false", "no", "off", "0", ""):
        return False
    raise ValueError("must be true or false")


def parse_words(text: str) -> tuple[str, ...]:
    """Returns the words of a list that is separated by commas."""
    return tuple(word for word in (part.strip() for part in text.split(",")) if word)


def parse_words_of(*choices: str) -> Callable[[str], tuple[str, ...]]:
    """Returns a parser of a list that accepts only some words, each at most once."""

    def parse(text: str) -> tuple[str, ...]:
        words = parse_words(text)
        wrong = [word for word in words if word not in choices]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is unknown: must be a list of {', '.join(choices)}")
        if len(set(words)) < len(words):
            raise ValueError("must name each word once")
        return words

    return parse


def parse_map(text: str, values: str) -> Mapping[str, Any]:
    """Returns a map from names to values.

    Args:
        text: The map as JSON, as `config.loading` writes the map of a YAML file; "" for an empty map.
        values: What its values are, for the message of the error.
    """
    if not text:
        return {}
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ValueError(f"must be a map from names to {values}")
    return document


def parse_roles(text: str) -> Mapping[str, frozenset[str]]:
    """Returns the roles of each name.

    Args:
        text: A map as JSON. A value is a list of roles, or a text with roles that are separated by commas.
    """
    roles = {}
    for name, given in parse_map(text, "lists of roles").items():
        listed = list(parse_words(given)) if isinstance(given, str) else given
        if not isinstance(listed, list) or not all(isinstance(role, str) and role for role in listed):
            raise ValueError(f"{name} must have a list of roles")
        roles[name] = frozenset(listed)
    return roles


def parse_labels(text: str) -> tuple[str, ...]:
    """Returns the labels of a list such as "zone=a, gpu=yes", as they are written."""
    words = parse_words(text)
    labels = dict(label_of(word) for word in words)
    if len(labels) < len(words):
        raise ValueError("must have each label once")
    problem = bad_label(labels)
    if problem:
        raise ValueError(problem)
    return words


def label_of(word: str) -> tuple[str, str]:
    """Returns the name and the value of a label that is written as name=value."""
    name, equals, value = word.partition("=")
    if not equals:
        raise ValueError(f"has {word!r}: must be name=value")
    return name.strip(), value.strip()


def parse_collector_url(text: str) -> str:
    """Returns the URL of an OpenTelemetry collector. The message of an error does not show it."""
    if not text:
        return ""
    try:
        url = urlsplit(text)
        is_valid = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or url.query or url.fragment:
        raise ValueError("must be a URL such as http://collector:4318")
    return text


def parse_ratio(text: str) -> float:
    """Returns a number from 0 to 1."""
    try:
        ratio = float(text)
    except ValueError:
        ratio = math.nan
    if not 0 <= ratio <= 1:
        raise ValueError("must be a number from 0 to 1")
    return ratio


def parse_one_of(*choices: str) -> Callable[[str], str]:
    """Returns a parser that accepts only some words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text

    return parse
