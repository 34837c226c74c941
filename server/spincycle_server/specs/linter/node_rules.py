"""Checks a node by itself, without its sequence and the other nodes."""

from __future__ import annotations

from collections.abc import Callable

from spincycle_server.specs.approval import APPROVAL, approval_problems
from spincycle_server.specs.backoff import backoff_problems
from spincycle_server.specs.each import each_problems
from spincycle_server.specs.linter.report import Report, Subject
from spincycle_server.specs.linter.sequence_rules import check_duration
from spincycle_server.specs.model import CATEGORIES, WINDOWS, NodeSpec, SequenceSpec
from spincycle_server.specs.problems import Severity


def check_node(
    report: Report, sequence: SequenceSpec, node: NodeSpec, knows_job_type: Callable[[str], bool] | None
) -> None:
    """Checks the fields of a node, except its args. Other modules check what it refers to."""
    subject = report.about(sequence, node)
    _check_category(subject, node)
    if node.category == "job" and node.type and knows_job_type and not knows_job_type(node.type):
        message = f"the job factory has no job type '{node.type}': correct the type, or add it to the factory"
        subject.error("UNKNOWN_JOB_TYPE", message, "type")
    _check_each(subject, node)
    _check_parallel(subject, node)
    for problem in approval_problems(node):
        subject.error(problem.code, problem.message, problem.field)
    for code, message in backoff_problems(node):
        subject.error(code, message, "retryWait")
    if node.retry_wait and not node.retry:
        message = "'retryWait' has no effect without 'retry': remove it, or set 'retry'"
        subject.error("RETRY_WAIT_WITHOUT_RETRY", message, "retryWait")
    check_duration(subject, "retryWait", node.retry_wait)
    check_duration(subject, "timeout", node.timeout)


def _check_parallel(subject: Subject, node: NodeSpec) -> None:
    if node.parallel is not None and node.parallel < 1:
        subject.error("BAD_PARALLEL", f"'parallel' is {node.parallel}, must be at least 1", "parallel")
    if node.parallel is not None and not node.each:
        subject.error(
            "PARALLEL_WITHOUT_EACH", "'parallel' has no effect without 'each': remove it", "parallel"
        )
    if node.window and node.window not in WINDOWS:
        message = f"'window' is '{node.window}', must be one of {', '.join(WINDOWS)}"
        subject.error("BAD_WINDOW", message, "parallel")
    failures = node.stop_after_failures
    if failures is None:
        return
    if failures < 1:
        message = f"'stopAfterFailures' is {failures}, must be at least 1"
        subject.error("BAD_STOP_AFTER_FAILURES", message, "stopAfterFailures")
    if node.window != "sliding":
        message = (
            "'stopAfterFailures' needs a sliding window: write 'parallel: {max: 10, window: sliding}', "
            "or remove it"
        )
        subject.error("STOP_AFTER_FAILURES_WITHOUT_WINDOW", message, "stopAfterFailures")


def _check_category(subject: Subject, node: NodeSpec) -> None:
    must_be = f"must be one of {', '.join(CATEGORIES)}"
    if not node.category:
        subject.error("MISSING_CATEGORY", f"the node has no category: {must_be}", "category")
    elif node.category not in CATEGORIES:
        subject.error("UNKNOWN_CATEGORY", f"unknown category '{node.category}': {must_be}", "category")
    elif node.category == APPROVAL:
        return
    elif node.category == "conditional":
        if node.type:
            message = "a conditional has no type: name its sequences in 'eq' and remove 'type'"
            subject.error("TYPE_ON_CONDITIONAL", message, "type")
        if not node.if_arg:
            subject.error("MISSING_IF", "a conditional needs 'if': name the arg to compare", "if")
        if not node.eq:
            subject.error("MISSING_EQ", "a conditional needs 'eq': name a sequence for each value", "eq")
    else:
        if not node.type:
            names = "a job type" if node.category == "job" else "a sequence"
            subject.error("MISSING_TYPE", f"the node has no type: name {names}", "type")
        if node.if_arg:
            message = f"'if' is for conditionals, not for a {node.category}: remove it"
            subject.error("IF_OUTSIDE_CONDITIONAL", message, "if")
        if node.eq:
            message = f"'eq' is for conditionals, not for a {node.category}: remove it"
            subject.error("EQ_OUTSIDE_CONDITIONAL", message, "eq")


def _check_each(subject: Subject, node: NodeSpec) -> None:
    for problem in each_problems(node):
        tell = subject.error if problem.severity is Severity.ERROR else subject.warning
        tell(problem.code, problem.message, "each")
