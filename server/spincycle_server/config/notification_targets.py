"""Parses the option `notifications.targets`: where events are sent, and which.

No message shows a URL, because the path of a webhook's URL is often a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from spincycle_server.config.values import parse_map, parse_truth, parse_words

FORMATS = ("json", "slack", "pagerduty")
"""How the body of a webhook can be written."""

EVENTS = ("approval-wanted", "failed", "completed", "stopped")
"""The events that a target can ask for."""

MAX_TARGETS = 20
"""The maximum number of targets. Each reads the database at intervals."""

MAX_ARGS = 20
"""The maximum number of args that a target can list."""

_NAME = re.compile("[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_KEYS = frozenset(
    {"url", "url_file", "secret_file", "format", "events", "types", "args", "errors", "allow_http"}
)


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """Where events are sent, and which. As text it shows no secret.

    Attributes:
        url: The URL; "" if `url_file` has it.
        url_file: The file with the URL, or "".
        secret_file: The file with the secrets, or "".
        format: One of FORMATS.
        events: Those of EVENTS that are sent.
        types: The types of requests whose events are sent; empty for all.
        args: The args of requests that are sent.
        shows_errors: Whether the last lines of jobs' errors are sent.
        allows_http: Whether the URL may be one of plain HTTP on another machine.
    """

    url: str = field(repr=False)
    url_file: str
    secret_file: str
    format: str
    events: frozenset[str]
    types: frozenset[str]
    args: tuple[str, ...]
    shows_errors: bool
    allows_http: bool

    def __str__(self) -> str:
        where = f"the URL in {self.url_file}" if self.url_file else urlsplit(self.url).hostname or ""
        types = f" of {', '.join(sorted(self.types))}" if self.types else ""
        return f"{', '.join(sorted(self.events))}{types} as {self.format} to {where}"


def parse_targets(text: str) -> Mapping[str, TargetOptions]:
    """Returns the targets by name.

    Args:
        text: A map from names to maps of options, as JSON; "" for no targets.
    """
    document = parse_map(text, "options of targets")
    if len(document) > MAX_TARGETS:
        raise ValueError(f"must have at most {MAX_TARGETS} targets")
    targets = {}
    for name, given in document.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} must be a name of at most 40 of a-z, 0-9 and -")
        try:
            targets[name] = _target_of(given)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return targets


def _target_of(given: Any) -> TargetOptions:
    if not isinstance(given, dict):
        raise ValueError("must be a map of options")
    unknown = sorted(given.keys() - _KEYS)
    if unknown:
        raise ValueError(f"unknown option {unknown[0]}: must be one of {', '.join(sorted(_KEYS))}")
    texts = {key: given.get(key) or "" for key in ("url", "url_file", "secret_file")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("url, url_file and secret_file must be texts")
    _check_url(texts["url"], texts["url_file"])
    form = given.get("format") or "json"
    if form not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}")
    if (form == "slack") == bool(texts["secret_file"]):
        raise ValueError(
            "secret_file must not be set, because Slack checks no signature: its secret is the URL"
            if form == "slack"
            else "secret_file must be set"
        )
    events = _words(given, "events")
    if not events or set(events) - set(EVENTS):
        raise ValueError(f"events must be a list of {', '.join(EVENTS)}")
    args = _words(given, "args")
    if len(args) > MAX_ARGS:
        raise ValueError(f"args must have at most {MAX_ARGS} names")
    return TargetOptions(
        **texts,
        format=form,
        events=frozenset(events),
        types=frozenset(_words(given, "types")),
        args=args,
        shows_errors=_truth(given, "errors", default=True),
        allows_http=_truth(given, "allow_http", default=False),
    )


def _check_url(url: str, url_file: str) -> None:
    if bool(url) == bool(url_file):
        raise ValueError("set url or url_file, and not both")
    try:
        is_valid = not url or (urlsplit(url).scheme in ("http", "https") and bool(urlsplit(url).hostname))
    except ValueError:
        is_valid = False
    if not is_valid:
        raise ValueError("url must be a URL of HTTPS")


def _words(given: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = given.get(key) or []
    words = list(parse_words(value)) if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) and word for word in words):
        raise ValueError(f"{key} must be a list of words")
    return tuple(words)


def _truth(given: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = given.get(key)
    try:
        return default if value in (None, "") else parse_truth(str(value))
    except ValueError as error:
        raise ValueError(f"{key} {error}") from error
