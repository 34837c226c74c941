"""Random specs: the linter and the builder agree on which of them can be built."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from random import Random
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.jobs import Job, JobId, Return
from spincycle_server.graph import ChainBuilder
from spincycle_server.specs.linter import lint
from spincycle_server.specs.model import NodeSpec, SequenceSpec, Specs
from spincycle_server.specs.problems import Severity
from tests.graph.models import node, sequence, specs

ARGS = ("a", "b", "c", "d")
SEQUENCES = ("s1", "s2", "s3")
VALUES = ("p", "q")

THE_CALLERS_FAULT = {"BAD_EACH", "BAD_IF", "TOO_MANY_JOBS", "CHAIN_TOO_LARGE"}
"""Errors that depend on the values of args, which no linter knows, such as `each` over a string."""

MISSING = {"MISSING_ARG", "ARG_CIRCLE"}


class Setter(Job):
    """Sets the args that its type names."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def create(self, job_args: dict[str, Any]) -> None:
        job_args.update(dict.fromkeys(self._names, VALUES[0]))

    def run(self, job_data: dict[str, Any]) -> Return:
        return Return()


def factory(job_id: JobId) -> Job:
    """Knows `set a b`, which sets a and b."""
    return Setter(job_id.type.split()[1:])


class SpecsMaker:
    """Makes specs that are often right, and wrong in few places when they are not."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._carelessness = random.choice([0.0, 0.05, 0.3])

    def make(self) -> Specs:
        made: dict[str, SequenceSpec] = {}
        for index, name in enumerate(reversed(SEQUENCES)):
            made[name] = self._sequence(name, list(reversed(SEQUENCES))[:index], made)
        made["request"] = self._sequence("request", SEQUENCES, made)
        return specs(*made.values())

    def _careless(self) -> bool:
        return self._random.random() < self._carelessness

    def _some(self, of: Sequence[str], most: int) -> list[str]:
        return self._random.sample(of, min(len(of), self._random.randint(0, most)))

    def _sequence(self, name: str, below: Sequence[str], made: dict[str, SequenceSpec]) -> SequenceSpec:
        required = [] if name == "request" else self._some(ARGS, 2)
        optional = [arg for arg in self._some(ARGS, 2) if arg not in required]
        exist = set(required) | set(optional)
        nodes: list[NodeSpec] = []
        for index in range(self._random.randint(1, 4)):
            fresh = self._node(f"n{index}", sorted(exist), [one.name for one in nodes], below, made)
            exist |= {one.as_name for one in fresh.sets}
            nodes.append(fresh)
        self._random.shuffle(nodes)
        return sequence(
            name,
            *nodes,
            request=name == "request",
            required=required,
            optional=dict.fromkeys(optional, VALUES[0]),
        )

    def _node(
        self,
        name: str,
        exist: Sequence[str],
        before: Sequence[str],
        below: Sequence[str],
        made: dict[str, SequenceSpec],
    ) -> NodeSpec:
        random = self._random
        known = ARGS if self._careless() else exist
        deps = self._some([*before, *(["n3"] if self._careless() else [])], 2)
        category = random.choice(["job", "job", "sequence", "conditional"])
        called = [random.choice(["noop", *below, *(SEQUENCES if self._careless() else [])]) for _ in VALUES]
        if category == "sequence":
            called = called[:1]
        if category == "job" or (category == "conditional" and not known):
            sets = self._some(ARGS, 2)
            given = {arg: random.choice(known) for arg in self._some(ARGS, 2)} if known else {}
            return node(name, "job", " ".join(["set", *sets]), args=given, sets=sets, deps=deps)
        needed = {arg.name for one in called if one in made for arg in made[one].required}
        if not known or self._careless():
            needed = set(self._some(sorted(needed), 1)) if known else set()
        args = {arg: random.choice(known) for arg in sorted(needed)}
        inside = [
            {arg.name for arg in (*spec.required, *spec.optional)}
            | {one.as_name for inner in spec.nodes.values() for one in inner.sets}
            for spec in (made.get(one) for one in called)
            if spec is not None
        ]
        settable = sorted(set.intersection(*inside)) if len(inside) == len(called) else []
        sets = self._some(ARGS if self._careless() else settable, 2)
        spec = node(
            name, category, called[0] if category == "sequence" else "", args=args, sets=sets, deps=deps
        )
        if category == "conditional":
            eq = dict(zip(VALUES, called, strict=True))
            spec = dataclasses.replace(spec, if_arg=random.choice(known), eq=eq)
        elif known and random.random() < 0.2:
            list_arg, element = random.choice(known), random.choice(ARGS)
            if element not in args:
                spec = dataclasses.replace(spec, each=(f"{list_arg}:{element}",))
        return spec


def failure_of(made: Specs) -> SpinCycleError | None:
    try:
        ChainBuilder(made, factory).build("request", {}, "request")
    except SpinCycleError as error:
        return error
    return None


@settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(min_value=0, max_value=2**48))
def test_specs_without_lint_errors_can_be_built(seed: int) -> None:
    made = SpecsMaker(Random(seed)).make()
    problems = [problem for problem in lint(made, lambda _: True) if problem.severity is Severity.ERROR]
    failure = failure_of(made)
    event("passed" if not problems else "refused")
    if not problems:
        assert failure is None or failure.reason in THE_CALLERS_FAULT, str(failure)
    if any(problem.code in MISSING and problem.sequence == "request" for problem in problems):
        assert failure is not None, [str(problem) for problem in problems]


def test_random_specs_are_sometimes_valid_and_sometimes_not() -> None:
    passed = [
        not any(problem.severity is Severity.ERROR for problem in lint(SpecsMaker(Random(seed)).make(), None))
        for seed in range(300)
    ]
    assert 60 < sum(passed) < 280
