"""Checks a sequence by itself: its args, access list, timeout and labels, and that it has nodes."""

from __future__ import annotations

from spincycle_grpc.duration import parse_duration
from spincycle_server.capabilities import bad_label
from spincycle_server.specs.linter.report import Report, Subject
from spincycle_server.specs.model import OPERATIONS, ArgSpec, SequenceSpec


def check_sequence(report: Report, sequence: SequenceSpec) -> None:
    """Checks the fields of a sequence, but not its nodes."""
    subject = report.about(sequence)
    if not sequence.nodes:
        subject.error("NO_NODES", "the sequence has no nodes: add a node, or remove the sequence", "nodes")
    check_duration(subject, "timeout", sequence.timeout)
    _check_runner(subject, sequence)
    lines: dict[str, int] = {}
    for arg in sequence.required:
        _check_arg(subject, "required", arg, lines)
    for arg in sequence.optional:
        _check_arg(subject, "optional", arg, lines)
    for arg in sequence.static:
        _check_arg(subject, "static", arg, lines)
    _check_acl(subject, sequence)


def check_duration(subject: Subject, field: str, text: str) -> None:
    """Checks a duration; "" means that there is none."""
    if text:
        try:
            parse_duration(text)
        except ValueError as error:
            subject.error("BAD_DURATION", f"'{field}' is '{text}', {error}", field)


def _check_arg(subject: Subject, kind: str, arg: ArgSpec, lines: dict[str, int]) -> None:
    if not arg.name:
        subject.error("UNNAMED_ARG", f"this {kind} arg has no name: give it one", "args", arg.position)
    elif arg.name in lines:
        message = f"duplicate arg '{arg.name}', first in line {lines[arg.name]}: remove one"
        subject.error("DUPLICATE_ARG", message, "args", arg.position)
    if kind == "required" and arg.default is not None:
        message = f"required arg '{arg.name}' has a default: remove the default, or make the arg optional"
        subject.error("DEFAULT_ON_REQUIRED", message, "args", arg.position)
    if kind != "required" and arg.default is None:
        message = f"{kind} arg '{arg.name}' has no default: give it one"
        subject.error("MISSING_DEFAULT", message, "args", arg.position)
    lines.setdefault(arg.name, arg.position.line)


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
