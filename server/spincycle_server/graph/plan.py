"""Plans: the part of building a sequence that depends only on its spec, done once for all requests.

A plan numbers the nodes in the order of the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from spincycle_grpc.v1.approval_pb2 import Approval
from spincycle_grpc.v1.job_pb2 import EachWindow, RetryBackoff
from spincycle_grpc.v1.limit_pb2 import (
    LIMIT_POLICY_QUEUE,
    LIMIT_POLICY_REFUSE,
    LIMIT_POLICY_REPLACE,
    LimitPolicy,
)
from spincycle_server.specs.approval import DEFAULT_TIMEOUT, approval_problems
from spincycle_server.specs.backoff import LONGEST, backoff_problems, factor_of
from spincycle_server.specs.each import EachPair, each_pairs, each_problems
from spincycle_server.specs.final_part import DEFAULT_FINAL_TIMEOUT
from spincycle_server.specs.limits import KeyPart, limit_problems, parse_key
from spincycle_server.specs.model import CATEGORIES, NOOP_SEQUENCE, WINDOWS, NodeSpec, SequenceSpec, Specs
from spincycle_server.specs.problems import Severity


class PlanError(Exception):
    """No chain can be built from a sequence spec.

    Attributes:
        message: The problem.
        reason: The reason of the resulting SpinCycleError.
        node: The node that has the problem, or "".
    """

    def __init__(self, message: str, reason: str, node: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.node = node


@dataclass(frozen=True, slots=True)
class NodePlan:
    """The plan of one node.

    Attributes:
        index: The number of the node in the sequence.
        args: (name inside, name outside) of each arg that it is given, including the `if` arg.
        each: The lists to iterate over, all in step. The node is built once per item.
        shares_elements: Another node of the sequence has an element of the same name.
        needs: The args that must exist before the node is built.
        sets: (name inside, name outside) of each arg that it sets.
        deps: The numbers of the nodes that it depends on.
        is_last: No node depends on it.
        window: The sliding window; None if `each` builds batches.
        retry_wait: The text for the job: "" without retry, "0s" if the spec gives no wait.
        backoff: How the pauses before retries grow; None if they do not.
        approval: What an approval asks, with the names of args in its message; None for other nodes.
    """

    index: int
    name: str
    category: str
    type: str
    args: tuple[tuple[str, str], ...]
    each: tuple[EachPair, ...]
    shares_elements: bool
    parallel: int | None
    window: EachWindow | None
    needs: tuple[str, ...]
    sets: tuple[tuple[str, str], ...]
    deps: tuple[int, ...]
    is_last: bool
    if_arg: str
    eq: dict[str, str]
    retry: int
    retry_wait: str
    backoff: RetryBackoff | None
    timeout: str
    approval: Approval | None


@dataclass(frozen=True, slots=True)
class LimitPlan:
    """The plan of one limit: the parts of its key, how many may hold it, and the policy."""

    parts: tuple[KeyPart, ...]
    max: int
    policy: LimitPolicy.ValueType


_POLICIES: dict[str, LimitPolicy.ValueType] = {
    "": LIMIT_POLICY_QUEUE,
    "queue": LIMIT_POLICY_QUEUE,
    "refuse": LIMIT_POLICY_REFUSE,
    "replace": LIMIT_POLICY_REPLACE,
}


@dataclass(frozen=True, slots=True)
class SequencePlan:
    """The plan of one sequence.

    Attributes:
        required: The names of its required args.
        defaults: Name and value of each optional and static arg.
        nodes: The plans of the nodes, by number.
        needed_by: Maps each arg to the numbers of the nodes that need it.
        limits: Its limits.
        final: The plan of its `finally`; None without one.
        timeout: How long it may run, as a duration, if it is the plan of a `finally`.
    """

    name: str
    required: tuple[str, ...]
    defaults: tuple[tuple[str, str], ...]
    nodes: tuple[NodePlan, ...]
    needed_by: dict[str, list[int]]
    limits: tuple[LimitPlan, ...] = ()
    final: SequencePlan | None = None
    timeout: str = ""


class Plans:
    """The plans of all sequences. Each plan is made on first use.

    Safe for concurrent use by several threads: at worst, two threads make the same plan.
    """

    def __init__(self, specs: Specs) -> None:
        self._specs = specs
        self._plans: dict[str, SequencePlan] = {}
        if NOOP_SEQUENCE not in specs.sequences:
            self._plans[NOOP_SEQUENCE] = SequencePlan(
                NOOP_SEQUENCE, required=(), defaults=(), nodes=(), needed_by={}
            )

    def __contains__(self, name: str) -> bool:
        """Returns whether a sequence of this name exists."""
        return name in self._plans or name in self._specs.sequences

    def get(self, name: str) -> SequencePlan:
        """Returns the plan of a sequence.

        Raises:
            KeyError: The sequence does not exist.
            PlanError: No chain can be built from the sequence.
        """
        plan = self._plans.get(name)
        if plan is None:
            plan = self._plans[name] = plan_sequence(self._specs.sequences[name])
        return plan


def plan_sequence(spec: SequenceSpec) -> SequencePlan:
    """Returns the plan of a sequence, in time linear in the size of its spec.

    Raises:
        PlanError: No chain can be built from the sequence.
    """
    nodes = _plan_nodes(spec.nodes)
    return SequencePlan(
        name=spec.name,
        required=tuple(arg.name for arg in spec.required),
        defaults=tuple(
            (arg.name, arg.default) for arg in (*spec.optional, *spec.static) if arg.default is not None
        ),
        nodes=nodes,
        needed_by=_needed_by(nodes),
        limits=plan_limits(spec),
        final=_plan_final(spec) if spec.final_nodes else None,
    )


def _plan_nodes(specs: Mapping[str, NodeSpec]) -> tuple[NodePlan, ...]:
    deps = _numbered_deps(specs)
    depended_on = {dep for node_deps in deps for dep in node_deps}
    elements = Counter(pair.element for node in specs.values() for pair in each_pairs(node))
    return tuple(
        _plan_node(index, node, deps[index], elements, is_last=index not in depended_on)
        for index, node in enumerate(specs.values())
    )


def _needed_by(nodes: Iterable[NodePlan]) -> dict[str, list[int]]:
    needed_by: dict[str, list[int]] = {}
    for node in nodes:
        for arg in node.needs:
            needed_by.setdefault(arg, []).append(node.index)
    return needed_by


def _plan_final(spec: SequenceSpec) -> SequencePlan:
    nodes = _plan_nodes(spec.final_nodes)
    return SequencePlan(
        name=spec.name,
        required=(),
        defaults=(),
        nodes=nodes,
        needed_by=_needed_by(nodes),
        timeout=spec.final_timeout or DEFAULT_FINAL_TIMEOUT,
    )


def plan_limits(spec: SequenceSpec) -> tuple[LimitPlan, ...]:
    """Returns the plans of a sequence's limits.

    Raises:
        PlanError: A limit is invalid.
    """
    plans = []
    for limit in spec.limits:
        parts = parse_key(limit.key)
        problem = next(limit_problems(limit), None)
        if problem is not None or parts is None:
            raise PlanError(f"invalid 'limits': {problem[1] if problem else limit.key}", "BAD_SPEC")
        plans.append(LimitPlan(parts, limit.max, _POLICIES[limit.policy]))
    return tuple(plans)


def _plan_node(
    index: int, spec: NodeSpec, deps: tuple[int, ...], elements: Mapping[str, int], *, is_last: bool
) -> NodePlan:
    if spec.category not in CATEGORIES:
        raise PlanError(
            f"unknown category {spec.category!r}, must be one of {', '.join(CATEGORIES)}",
            "BAD_SPEC",
            spec.name,
        )
    for problem in approval_problems(spec):
        raise PlanError(problem.message, "BAD_SPEC", spec.name)
    if spec.parallel is not None and spec.parallel < 1:
        raise PlanError(f"'parallel' is {spec.parallel}, must be at least 1", "BAD_SPEC", spec.name)
    for _, message in backoff_problems(spec):
        raise PlanError(message, "BAD_SPEC", spec.name)
    if spec.category == "conditional" and not (spec.if_arg and spec.eq):
        raise PlanError("a conditional must have 'if' and 'eq'", "BAD_SPEC", spec.name)
    each = _checked_each(spec)
    if_arg = spec.if_arg if spec.category == "conditional" else ""
    args = [(arg.expected, arg.given) for arg in spec.args]
    if if_arg:
        args.append((if_arg, if_arg))
    needs = dict.fromkeys([given for _, given in args] + [pair.list_arg for pair in each])
    return NodePlan(
        index=index,
        name=spec.name,
        category=spec.category,
        type=spec.type,
        args=tuple(args),
        each=each,
        shares_elements=any(elements[pair.element] > 1 for pair in each),
        parallel=spec.parallel,
        window=_window(spec),
        needs=tuple(needs),
        sets=tuple((node_set.arg, node_set.as_name) for node_set in spec.sets),
        deps=deps,
        is_last=is_last,
        if_arg=if_arg,
        eq=dict(spec.eq),
        retry=spec.retry,
        retry_wait=(spec.retry_wait or "0s") if spec.retry else "",
        backoff=_backoff(spec),
        timeout=spec.timeout,
        approval=_approval(spec),
    )


def _approval(spec: NodeSpec) -> Approval | None:
    approval = spec.approval
    if approval is None:
        return None
    return Approval(
        roles=approval.roles,
        approvals=approval.approvals or 1,
        by_requester=approval.by_requester,
        message=approval.message,
        timeout=spec.timeout or DEFAULT_TIMEOUT,
        continue_on_timeout=approval.on_timeout == "continue",
    )


def _window(spec: NodeSpec) -> EachWindow | None:
    """Returns the sliding window of a node, without elements."""
    if spec.window not in ("", *WINDOWS):
        raise PlanError(
            f"unknown window {spec.window!r}, must be {' or '.join(WINDOWS)}", "BAD_SPEC", spec.name
        )
    if spec.window != "sliding":
        return None
    if spec.parallel is None or spec.stop_after_failures == 0:
        raise PlanError(
            "a sliding window needs 'max', and 'stopAfterFailures' of at least 1", "BAD_SPEC", spec.name
        )
    return EachWindow(max=spec.parallel, stop_after_failures=spec.stop_after_failures or 1)


def _backoff(spec: NodeSpec) -> RetryBackoff | None:
    if spec.backoff is None or not spec.retry:
        return None
    return RetryBackoff(
        factor=factor_of(spec.backoff), max=spec.backoff.max or LONGEST, jitter=spec.backoff.jitter
    )


def _checked_each(spec: NodeSpec) -> tuple[EachPair, ...]:
    for problem in each_problems(spec):
        if problem.severity is Severity.ERROR:
            where = f"invalid 'each:' each:[{' '.join(spec.each)}]"
            raise PlanError(f"{where}: {problem.message}", "BAD_SPEC", spec.name)
    return tuple(each_pairs(spec))


def _numbered_deps(specs: Mapping[str, NodeSpec]) -> list[tuple[int, ...]]:
    numbers = {name: index for index, name in enumerate(specs)}
    deps = [tuple(dict.fromkeys(node.deps)) for node in specs.values()]
    dependents: dict[str, list[int]] = {}
    for index, names in enumerate(deps):
        for name in names:
            dependents.setdefault(name, []).append(index)
    unmet = [len(names) for names in deps]
    names_by_number = list(specs)
    met = [index for index, count in enumerate(unmet) if count == 0]
    for index in met:  # The loop appends nodes whose last dep has been met.
        for dependent in dependents.get(names_by_number[index], ()):
            unmet[dependent] -= 1
            if unmet[dependent] == 0:
                met.append(dependent)
    if len(met) < len(deps):
        stuck = " ".join(name for name, count in zip(specs, unmet, strict=True) if count)
        raise PlanError(f"Impossible dependencies found amongst: [{stuck}]", "IMPOSSIBLE_DEPS")
    return [tuple(numbers[name] for name in names) for names in deps]
