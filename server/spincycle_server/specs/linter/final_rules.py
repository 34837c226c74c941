"""Checks the `finally` of a sequence: its nodes, what these may call, and its timeout."""

from __future__ import annotations

from spincycle_grpc.duration import parse_duration
from spincycle_server.specs.approval import APPROVAL
from spincycle_server.specs.call_graph import CallGraph, called_by, calling_field
from spincycle_server.specs.linter.report import Report
from spincycle_server.specs.linter.sequence_rules import check_duration
from spincycle_server.specs.model import SequenceSpec, Specs


def check_finally(report: Report, sequence: SequenceSpec, specs: Specs, calls: CallGraph) -> None:
    """Checks the `finally` of a sequence.

    Args:
        report: Collects the problems.
        sequence: The sequence.
        specs: All specs.
        calls: All calls in the specs.
    """
    subject = report.about(sequence)
    if sequence.final_position is not None and not sequence.final_nodes:
        message = "'finally' has no nodes: add a node, or remove it"
        subject.error("NO_FINALLY_NODES", message, "finally", sequence.final_position)
    _check_timeout(report, sequence)
    for name, node in sequence.final_nodes.items():
        about = report.about(sequence, node)
        if name in sequence.nodes:
            message = (
                f"node '{name}' is also one of 'nodes': rename one, because paths of jobs show the names"
            )
            about.error("DUPLICATE_NODE", message)
        if node.category == APPROVAL:
            message = "'finally' cannot wait for an approval, because it must end: move it to 'nodes'"
            about.error("APPROVAL_IN_FINALLY", message, "category")
        for called in map(specs.sequences.__getitem__, calls.reached(called_by(node))):
            if called.final_nodes or any(one.category == APPROVAL for one in called.nodes.values()):
                has = "a 'finally' of its own" if called.final_nodes else "an approval"
                message = f"the node calls sequence '{called.name}', which has {has}: call one without it"
                about.error("NESTED_FINALLY", message, calling_field(node))
                break


def _check_timeout(report: Report, sequence: SequenceSpec) -> None:
    subject = report.about(sequence)
    text = sequence.final_timeout
    check_duration(subject, "finallyTimeout", text)
    if text and not sequence.final_nodes:
        message = "'finallyTimeout' has no effect without 'finally': remove it"
        subject.error("TIMEOUT_WITHOUT_FINALLY", message, "finallyTimeout")
    elif text and _is_zero(text):
        message = "'finallyTimeout' must be positive, because a request cannot end before its 'finally' has"
        subject.error("BAD_DURATION", message, "finallyTimeout")


def _is_zero(text: str) -> bool:
    try:
        return parse_duration(text) <= 0
    except ValueError:
        return False  # `check_duration` says what is wrong.
