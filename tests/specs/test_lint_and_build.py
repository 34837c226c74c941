"""Random specs: the linter and the builder agree on which of them can be built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import HealthCheck, assume, given, settings, target
from hypothesis import strategies as st

from server.graph import ChainBuilder
from server.specs.linter import lint
from server.specs.model import NodeSpec, SequenceSpec, Specs
from server.specs.problems import Severity
from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.jobs import Job, JobId, Return
from tests.graph.models import node, sequence

ARGS = ("a", "b", "c", "d")
SEQUENCES = ("request", "s1", "s2", "s3")
VALUES = ("p", "q")
THE_CALLERS_FAULT = {"BAD_EACH", "BAD_IF"}

args = st.sampled_from(ARGS)
slowly = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


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


@st.composite
def nodes(draw: st.DrawFn, name: str, index: int, categories: Sequence[str], *, each: bool) -> NodeSpec:
    category = draw(st.sampled_from(categories))
    called = st.sampled_from(SEQUENCES[1:])
    expected = draw(st.dictionaries(args, args, max_size=3))
    sets = {as_name: arg for as_name, arg in draw(st.dictionaries(args, args, max_size=2)).items()}
    elements = draw(st.dictionaries(args, args, max_size=1)) if each else {}
    spec = node(
        name,
        category,
        args=expected,
        each=[f"{list_arg}:{element}" for element, list_arg in elements.items() if element not in expected],
        deps=[f"n{draw(st.integers(0, index - 1))}"] if index and draw(st.booleans()) else [],
    )
    fields: dict[str, Any] = {"sets": node("", sets={arg: as_name for as_name, arg in sets.items()}).sets}
    if category == "conditional":
        fields |= {"type": "", "if_arg": draw(args), "eq": {value: draw(called) for value in VALUES}}
    elif category == "sequence":
        fields |= {"type": draw(called)}
    else:
        fields |= {"type": " ".join(["set", *{one.arg for one in fields["sets"]}])}
    return _with(spec, fields)
