"""Checks the call graph: finds cycles, and sequences that no request reaches."""

from __future__ import annotations

from spincycle_server.specs.call_graph import CallGraph, calling_field
from spincycle_server.specs.linter.cycles import find_cycles
from spincycle_server.specs.linter.report import Report, arrows
from spincycle_server.specs.model import Specs


def check_calls(report: Report, specs: Specs, calls: CallGraph) -> None:
    """Checks the calls of all sequences together."""
    for cycle in find_cycles(calls.targets):
        node = calls.targets[cycle[0]][(cycle[1:] or cycle)[0]]
        message = f"sequences call each other in a cycle: {arrows(cycle)}; remove one of the calls"
        report.about(specs.sequences[cycle[0]], node).error("SEQUENCE_CIRCLE", message, calling_field(node))
    reached = set(calls.reached(specs.request_types))
    for name, sequence in specs.sequences.items():
        if name not in reached:
            message = "no request reaches the sequence: set `request: true`, call it, or remove it"
            report.about(sequence).warning("UNREACHED_SEQUENCE", message)
