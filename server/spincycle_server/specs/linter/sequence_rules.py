"""Checks a sequence by itself: its access list, timeout and labels, and that it has nodes."""

from __future__ import annotations

from spincycle_grpc.duration import parse_duration
from spincycle_server.capabilities import bad_label
from spincycle_server.specs.linter.report import Report, Subject
from spincycle_server.specs.model import OPERATIONS, SequenceSpec


def check_sequence(report: Report, sequence: SequenceSpec) -> None:
    """Checks the fields of a sequence, except its args, limits, nodes and `finally`."""
    subject = report.about(sequence)
    if not sequence.nodes:
        subject.error("NO_NODES", "the sequence has no nodes: add a node, or remove the sequence", "nodes")
    check_duration(subject, "timeout", sequence.timeout)
    _check_runner(subject, sequence)
    _check_acl(subject, sequence)


def check_duration(subject: Subject, field: str, text: str) -> None:
    """Checks a duration; "" means that there is none."""
    if text:
        try:
            parse_duration(text)
        except ValueError as error:
            subject.error("BAD_DURATION", f"'{field}' is '{text}', {error}", field)


def _check_runner(subject: Subject, sequence: SequenceSpec) -> None:
    problem = bad_label(sequence.runner)
    if problem:
        subject.error("BAD_LABEL", f"'runner' {problem}", "runner")
    elif sequence.runner and not sequence.request:
        subject.warning(
            "UNUSED_RUNNER",
            "'runner' has no effect, because the sequence is not a request: move it to the request",
            "runner",
        )


def _check_acl(subject: Subject, sequence: SequenceSpec) -> None:
    lines: dict[str, int] = {}
    for acl in sequence.acl:
        if not acl.role:
            subject.error("MISSING_ROLE", "this acl entry has no role: name one", "acl", acl.position)
        elif acl.role in lines:
            message = f"duplicate role '{acl.role}', first in line {lines[acl.role]}: merge the entries"
            subject.error("DUPLICATE_ROLE", message, "acl", acl.position)
        if acl.admin and acl.ops:
            message = f"role '{acl.role}' has 'ops', but 'admin' already allows all: remove one of them"
            subject.error("ADMIN_WITH_OPS", message, "acl", acl.position)
        for op in dict.fromkeys(acl.ops):
            if op not in OPERATIONS:
                message = f"unknown op '{op}': must be one of {', '.join(OPERATIONS)}"
                subject.error("UNKNOWN_OP", message, "acl", acl.position)
        lines.setdefault(acl.role, acl.position.line)
