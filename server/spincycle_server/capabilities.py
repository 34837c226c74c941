"""What a request needs of a Job Runner, and what a runner has: job types, labels and features.

A feature is something that only newer runners can do with a chain, by a name.

Both are immutable, and have an id that depends on their content alone. So every server computes the same ids,
and the database stores each requirement once, however many requests have it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

Labels: TypeAlias = frozenset[tuple[str, str]]
"""Pairs of name and value."""

ID_LENGTH = 32
"""The length of the id of a requirement or of capabilities: hexadecimal digits of a SHA-256."""

MAX_LABELS = 50
"""The maximum number of labels of a runner or a request."""

MAX_FEATURES = 50
"""The maximum number of features of a runner."""

PAUSE = "pause"
"""The feature of runners that can pause a chain: they have the methods PauseJobChain and UnpauseJobChain."""

RETRY_BACKOFF = "retry-backoff"
"""The feature of runners that let the pauses before retries grow: `RetryBackoff`."""

SLIDING_WINDOW = "sliding-window"
"""The feature of runners that limit the elements of `each` by a sliding window: `EachWindow`."""

APPROVAL = "approval"
"""The feature of runners that wait for approvals: jobs with `Approval`, and the method EndApproval."""

FINALLY = "finally"
"""The feature of runners that run the `finally` parts of sequences: jobs with `is_finally`."""

SEQUENCE_LIMITS = "sequence-limits"
"""The feature of runners that let sequences wait for keys of limits: jobs with `sequence_limits`."""

ALL_FEATURES = (PAUSE, RETRY_BACKOFF, SLIDING_WINDOW, APPROVAL, FINALLY, SEQUENCE_LIMITS)
"""The features of the runners of this release."""

_LABEL_TEXT = re.compile(r"[0-9A-Za-z._/-]{1,63}")

_SHOWN = 5
"""The number of job types, and of labels, that a sentence names of many. It has at most 1,500 bytes."""


def content_id(data: bytes) -> str:
    """Returns the id of some JSON."""
    return hashlib.sha256(data).hexdigest()[:ID_LENGTH]


def _json(types: frozenset[str] | None, labels: Labels, features: frozenset[str], version: str = "") -> bytes:
    fields: dict[str, object] = {"types": None if types is None else sorted(types)}
    fields["labels"] = dict(sorted(labels))
    # Without features and version, the JSON and so the id are those of releases without them.
    if features:
        fields["features"] = sorted(features)
    if version:
        fields["version"] = version
    return orjson.dumps(fields)


def _labels_in(fields: Mapping[str, Any]) -> Labels:
    return frozenset(fields["labels"].items())


def _features_in(fields: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(fields.get("features", ()))


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a request needs: a runner that knows all its job types and features, and has all its labels.

    Attributes:
        types: The types of the jobs in its chain.
        labels: The labels.
        features: The features that its chain uses, beyond those of the first release.
        requirement_id: The id.
    """

    types: frozenset[str] = field(compare=False)
    labels: Labels = field(default=frozenset(), compare=False)
    features: frozenset[str] = field(default=frozenset(), compare=False)
    requirement_id: str = field(init=False)

    def __post_init__(self) -> None:
        """Derives the id."""
        object.__setattr__(self, "requirement_id", content_id(self.to_json()))

    def to_json(self) -> bytes:
        """Returns the requirement as JSON. Equal requirements have equal JSON."""
        return _json(self.types, self.labels, self.features)

    @classmethod
    def from_json(cls, data: bytes) -> Requirement:
        """Reads what `to_json` has written."""
        fields = orjson.loads(data)
        return cls(frozenset(fields["types"]), _labels_in(fields), _features_in(fields))


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a runner has.

    Attributes:
        types: The job types that it knows; None if it does not say, and so is taken to know all.
        labels: Its labels.
        features: The features that it knows, beyond those of the first release.
        version: The version of its package; "" if unknown. No request depends on it.
        capabilities_id: The id.
    """

    types: frozenset[str] | None = field(compare=False)
    labels: Labels = field(default=frozenset(), compare=False)
    features: frozenset[str] = field(default=frozenset(), compare=False)
    version: str = field(default="", compare=False)
    capabilities_id: str = field(init=False)

    def __post_init__(self) -> None:
        """Derives the id."""
        object.__setattr__(self, "capabilities_id", content_id(self.to_json()))

    def meet(self, requirement: Requirement) -> bool:
        """Whether a runner with these capabilities can run a request with the requirement."""
        return (
            requirement.labels <= self.labels
            and requirement.features <= self.features
            and (self.types is None or requirement.types <= self.types)
        )

    def to_json(self) -> bytes:
        """Returns the capabilities as JSON. Equal capabilities have equal JSON."""
        return _json(self.types, self.labels, self.features, self.version)

    @classmethod
    def from_json(cls, data: bytes) -> Capabilities:
        """Reads what `to_json` has written."""
        fields = orjson.loads(data)
        types = None if fields["types"] is None else frozenset(fields["types"])
        return cls(types, _labels_in(fields), _features_in(fields), fields.get("version", ""))


WAITS_FOR_LIMIT = Requirement(frozenset(), features=frozenset({"waits-for-a-limit"}))
"""Stands for the requirement of a PENDING request until it holds the keys of its limits.

No runner has the feature. So the request waits beside the others, as one does that no runner can run, also
with Request Managers of earlier releases.
"""

KNOWS_ALL = Capabilities(None)
"""A runner that says nothing about itself, such as one of an earlier version."""

KNOWS_NOTHING = Capabilities(frozenset())
"""A runner that was not asked yet."""

NEEDS_NOTHING = Requirement(frozenset())
"""Every runner can run it."""


def labels_of(labels: Mapping[str, str]) -> Labels:
    """Returns the labels of a map."""
    return frozenset(labels.items())


def known_version(version: str) -> str:
    """Returns the version of a runner's package; "" if it has the form of none."""
    return version if _LABEL_TEXT.fullmatch(version) else ""


def bad_feature(features: Collection[str]) -> str:
    """Returns what is wrong with the names of features, to follow after "features"; "" if nothing is."""
    if len(features) > MAX_FEATURES:
        return f"must be at most {MAX_FEATURES} names"
    for name in features:
        if not _LABEL_TEXT.fullmatch(name):
            return f"have {name[:80]!r}: names must have 1 to 63 characters of 0-9 A-Z a-z . _ / -"
    return ""


def bad_label(labels: Mapping[str, str]) -> str:
    """Returns what is wrong with labels, to follow after their name; "" if nothing is."""
    if len(labels) > MAX_LABELS:
        return f"must have at most {MAX_LABELS} labels"
    for name, value in labels.items():
        for text in (name, value):
            if not _LABEL_TEXT.fullmatch(text):
                return (
                    f"has the label {name[:80]!r}={value[:80]!r}: names and values must have 1 to 63 "
                    "characters of 0-9 A-Z a-z . _ / -"
                )
    return ""


def why_not(requirement: Requirement, runners: Collection[Capabilities]) -> str:
    """Returns why none of the runners can run a request, as a sentence without a full stop; "" if one can."""
    if any(one.meet(requirement) for one in runners):
        return ""
    if not runners:
        return "no job runner is alive"
    labelled = [one for one in runners if requirement.labels <= one.labels]
    with_labels = f" {_with_labels(requirement.labels)}" if requirement.labels else ""
    if not labelled:
        return f"no job runner has the {_labels(requirement.labels)}"
    without = requirement.features - frozenset[str]().union(*(one.features for one in labelled))
    if without:
        return f"no job runner{with_labels} knows the {_features(without)}: upgrade the job runners"
    known = frozenset[str]().union(*(one.types for one in labelled if one.types is not None))
    unknown = requirement.types - known
    if unknown:
        return f"no job runner{with_labels} knows the {_types(unknown)}"
    needed = [_features(requirement.features)] if requirement.features else []
    needed += [_types(requirement.types)] if requirement.types else []
    return f"no job runner{with_labels} knows all of the {' and the '.join(needed)}"


def _types(types: Iterable[str]) -> str:
    return _listed("job type", types)


def _features(features: Iterable[str]) -> str:
    return _listed("feature", features)


def _with_labels(labels: Labels) -> str:
    return f"with the {_labels(labels)}"


def _labels(labels: Labels) -> str:
    return _listed("label", (f"{name}={value}" for name, value in labels))


def _listed(noun: str, texts: Iterable[str]) -> str:
    names = sorted(texts)
    if len(names) == 1:
        return f"{noun} {names[0]}"
    rest = len(names) - _SHOWN
    shown = names if rest <= 1 else [*names[:_SHOWN], f"{rest} more"]
    return f"{noun}s {', '.join(shown[:-1])} and {shown[-1]}"
