"""Checks the limits of sequences: each by itself, and that all limits of one key have the same maximum."""

from __future__ import annotations

from spincycle_server.limit_bounds import MAX_LIMITS
from spincycle_server.specs.limits import limit_problems, parse_key
from spincycle_server.specs.linter.arg_usage import SequenceUsage
from spincycle_server.specs.linter.report import Report, Subject
from spincycle_server.specs.model import LimitSpec, Specs
from spincycle_server.specs.secret_names import is_secret_name


def check_limits(report: Report, uses: SequenceUsage) -> None:
    """Checks the limits of a sequence."""
    sequence = uses.sequence
    subject = report.about(sequence)
    if len(sequence.limits) > MAX_LIMITS:
        message = f"the sequence has {len(sequence.limits)} limits, must be at most {MAX_LIMITS}"
        subject.error("TOO_MANY_LIMITS", message, "limits")
    lines: dict[str, int] = {}
    for limit in sequence.limits:
        for code, text in limit_problems(limit):
            subject.error(code, text, "limits", limit.position)
        _check_args(subject, limit, uses.declared)
        if limit.key in lines:
            message = f"duplicate key '{limit.key}', first in line {lines[limit.key]}: remove one"
            subject.error("DUPLICATE_LIMIT", message, "limits", limit.position)
        lines.setdefault(limit.key, limit.position.line)


def _check_args(subject: Subject, limit: LimitSpec, declared: frozenset[str]) -> None:
    for part in parse_key(limit.key) or ():
        if part.arg and is_secret_name(part.arg):
            message = (
                f"'key' would show arg '{part.arg}', whose name says that it is secret: leave it out, "
                "because everybody who may view such a request sees its keys"
            )
            subject.error("SECRET_IN_LIMIT", message, "limits", limit.position)
        elif part.arg and part.arg not in declared:
            message = f"the sequence has no arg '{part.arg}': declare it, or name another arg in 'key'"
            subject.error("UNKNOWN_LIMIT_ARG", message, "limits", limit.position)


def check_limits_agree(report: Report, specs: Specs) -> None:
    """Checks that a key has the same maximum wherever it is written, whatever its args are called there."""
    first: dict[str, LimitSpec] = {}
    for sequence in specs.sequences.values():
        for limit in sequence.limits:
            other = first.setdefault(_shape(limit.key), limit)
            if other.max != limit.max:
                message = (
                    f"'max' of the key '{limit.key}' is {limit.max}, but {other.max} in {other.position}: "
                    "write the same number in both places"
                )
                report.about(sequence).error("LIMITS_DIFFER", message, "limits", limit.position)


def _shape(key: str) -> str:
    """Returns a key with `{}` for each arg."""
    parts = parse_key(key)
    return key if parts is None else "".join(part.text + ("{}" if part.arg else "") for part in parts)
