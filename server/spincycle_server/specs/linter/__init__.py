"""The linter of request specs: finds problems that would make building requests fail, before a server starts.

Specs without errors can be built: every arg that a node needs exists when the node is built, provided
that each job sets the args in its node's `sets`.
"""

from __future__ import annotations

from collections.abc import Callable

from spincycle_server.specs.call_graph import CallGraph
from spincycle_server.specs.linter.arg_name_rules import ArgNameRules
from spincycle_server.specs.linter.arg_rules import ArgRules
from spincycle_server.specs.linter.arg_usage import sequence_usage
from spincycle_server.specs.linter.call_graph_rules import check_calls
from spincycle_server.specs.linter.call_rules import check_call
from spincycle_server.specs.linter.dep_rules import check_deps
from spincycle_server.specs.linter.final_rules import check_finally
from spincycle_server.specs.linter.key_args import key_args
from spincycle_server.specs.linter.limit_rules import check_limits, check_limits_agree
from spincycle_server.specs.linter.node_rules import check_node
from spincycle_server.specs.linter.report import Report
from spincycle_server.specs.linter.sequence_rules import check_sequence
from spincycle_server.specs.model import Specs
from spincycle_server.specs.problems import Problem

__all__ = ["lint"]


def lint(specs: Specs, knows_job_type: Callable[[str], bool] | None) -> list[Problem]:
    """Checks specs.

    Args:
        specs: All specs of the server.
        knows_job_type: Returns whether the job factory knows a job type. None skips this check.

    Returns:
        All errors and warnings, by file and line.
    """
    report = Report()
    uses = {name: sequence_usage(sequence) for name, sequence in specs.sequences.items()}
    calls = CallGraph(specs)
    shown = key_args(specs, calls)
    for name, sequence in specs.sequences.items():
        check_sequence(report, sequence)
        check_deps(report, sequence)
        check_limits(report, uses[name])
        for node in uses[name].all_nodes:
            check_node(report, sequence, node.node, knows_job_type)
            check_call(report, sequence, node, uses, shown)
        ArgNameRules(report, sequence).check()
        ArgRules(report, uses[name], calls.of[name]).check()
        check_finally(report, sequence, specs, calls)
    check_calls(report, specs, calls)
    check_limits_agree(report, specs)
    return report.in_order()
