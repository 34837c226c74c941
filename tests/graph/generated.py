"""Hypothesis strategies: valid specs and args, and invalid ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from hypothesis import strategies as st

from spincycle_server.specs.model import BackoffSpec, NodeSet, NodeSpec, SequenceSpec, Specs
from tests.graph.models import NOWHERE, node, sequence

BACKOFF = BackoffSpec(factor="1.5", max="", jitter=True)

_T = TypeVar("_T")

TEXTS = ("yes", "no", "maybe")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@dataclass
class Written:
    """The specs and args of a request. All lists have the same length, so `each` can combine any of them."""

    sequences: dict[str, SequenceSpec] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)
    length: int = 1
    names: int = 0

    @property
    def specs(self) -> Specs:
        return Specs(self.sequences)

    def new_name(self, prefix: str) -> str:
        self.names += 1
        return f"{prefix}{self.names}"


class Kinds(dict[str, str]):
    """Maps args to the kinds of their values: text, list or any."""

    def of(self, kind: str) -> list[str]:
        return sorted(name for name, its_kind in self.items() if its_kind == kind)


@st.composite
def written_requests(draw: st.DrawFn) -> Written:
    """Returns a valid request."""
    made = Written(length=draw(st.integers(1, 3)))
    takes = Kinds()
    for kind in draw(st.lists(st.sampled_from(["text", "list"]), max_size=4)):
        arg = made.new_name("given")
        takes[arg] = kind
        made.given[arg] = draw(st.sampled_from(TEXTS)) if kind == "text" else draw(_lists(made))
    _write_sequence(draw, made, "request", takes, depth=2)
    made.sequences["request"] = replace(made.sequences["request"], request=True)
    return made


def _lists(made: Written) -> st.SearchStrategy[list[Any]]:
    return st.lists(JSON, min_size=made.length, max_size=made.length)


def _write_sequence(draw: st.DrawFn, made: Written, name: str, takes: Kinds, depth: int) -> Kinds:
    """Writes a sequence and the sequences in it. Returns the args that exist at its end."""
    exist = Kinds(takes)
    optional, static = ({made.new_name(prefix): draw(st.sampled_from(TEXTS))} if draw(st.booleans()) else {}
                        for prefix in ("optional", "static"))  # fmt: skip
    exist.update(dict.fromkeys([*optional, *static], "text"))
    nodes: list[NodeSpec] = []
    for number in range(draw(st.integers(0, 3))):
        nodes.append(_write_node(draw, made, f"n{number}", exist, [one.name for one in nodes], depth))
    made.sequences[name] = sequence(
        name,
        *draw(st.permutations(nodes)),
        required=list(takes),
        optional=optional,
        static=static,
        timeout=draw(st.sampled_from(["", "1h"])),
    )
    return exist


def _write_node(
    draw: st.DrawFn, made: Written, name: str, exist: Kinds, earlier: list[str], depth: int
) -> NodeSpec:
    """Writes a node and adds the args that it sets to `exist`."""
    categories = ["job"] + (["sequence", "conditional"] if depth else [])
    category = draw(st.sampled_from(categories))
    if category == "conditional" and not exist.of("text"):
        category = "job"
    inside = Kinds()
    args = {}
    for given in _some(draw, sorted(exist)):
        expected = draw(st.sampled_from([given, made.new_name("x")]))
        args[expected] = given
        inside[expected] = exist[given]
    each = [f"{arg}:{made.new_name('e')}" for arg in _some(draw, exist.of("list"))]
    inside.update(dict.fromkeys((pair.split(":")[1] for pair in each), "any"))
    retry = draw(st.integers(0, 2))
    parallel = draw(st.sampled_from([None, 1, 2])) if each else None
    window = draw(st.sampled_from(["", "batches", "sliding"])) if parallel else ""
    base = node(
        name,
        category,
        args=args,
        deps=_some(draw, earlier),
        each=each,
        parallel=parallel,
        window=window,
        stop_after_failures=draw(st.sampled_from([None, 3])) if window == "sliding" else None,
        retry=retry,
        retry_wait=draw(st.sampled_from(["", "50ms"])) if retry else "",
        backoff=draw(st.sampled_from([None, BACKOFF])) if retry else None,
        timeout=draw(st.sampled_from(["", "30s"])),
    )
    write = {"job": _finish_job, "sequence": _finish_sequence, "conditional": _finish_conditional}[category]
    finished, can_set = write(draw, made, base, inside, exist, depth)
    return _set_some(draw, made, finished, can_set, exist)


def _finish_job(
    draw: st.DrawFn, made: Written, base: NodeSpec, inside: Kinds, exist: Kinds, depth: int
) -> tuple[NodeSpec, Kinds]:
    sets_a_list = "set " + json.dumps(["yes"] * made.length)
    node_type = draw(st.sampled_from(["noop", "keep", 'set "no"', sets_a_list]))
    can_set = Kinds()
    if node_type.startswith("set "):
        can_set["out"] = "list" if node_type == sets_a_list else "text"
    return replace(base, type=node_type), can_set


def _finish_sequence(
    draw: st.DrawFn, made: Written, base: NodeSpec, inside: Kinds, exist: Kinds, depth: int
) -> tuple[NodeSpec, Kinds]:
    name = made.new_name("sequence")
    return replace(base, type=name), _write_sequence(draw, made, name, inside, depth - 1)


def _finish_conditional(
    draw: st.DrawFn, made: Written, base: NodeSpec, inside: Kinds, exist: Kinds, depth: int
) -> tuple[NodeSpec, Kinds]:
    if_arg = draw(st.sampled_from(exist.of("text")))
    inside[if_arg] = "text"
    eq = {}
    for value in [*_some(draw, list(TEXTS)), "default"]:
        eq[value] = draw(st.sampled_from(["noop", made.new_name("branch")]))
        if eq[value] != "noop":
            _write_sequence(draw, made, eq[value], inside, depth - 1)
    return replace(base, if_arg=if_arg, eq=eq), Kinds(inside)


def _set_some(draw: st.DrawFn, made: Written, spec: NodeSpec, can_set: Kinds, exist: Kinds) -> NodeSpec:
    sets: list[NodeSet] = []
    for arg in _some(draw, sorted(can_set)):
        as_name = draw(st.sampled_from([made.new_name("set"), *exist.of(can_set[arg])]))
        if as_name not in {one.as_name for one in sets}:
            sets.append(NodeSet(arg, as_name, NOWHERE))
            exist[as_name] = can_set[arg]
    return replace(spec, sets=tuple(sets))


def _some(draw: st.DrawFn, names: list[_T]) -> list[_T]:
    return draw(st.lists(st.sampled_from(names), max_size=2, unique=True)) if names else []


_BREAKS: list[Callable[[NodeSpec], NodeSpec]] = [
    lambda spec: replace(spec, args=()),
    lambda spec: replace(spec, deps=("nowhere",)),
    lambda spec: replace(spec, deps=(spec.name,)),
    lambda spec: replace(spec, sets=(NodeSet("unset", "unset", NOWHERE),)),
    lambda spec: replace(spec, type="unknown", eq=dict.fromkeys(spec.eq, "unknown")),
    lambda spec: replace(spec, category="sequence", type="request"),
    lambda spec: replace(spec, args=node("", args=["nowhere"]).args),
    lambda spec: replace(spec, eq={"never": "noop"}),
    lambda spec: replace(spec, each=("given1:b:c",)),
    lambda spec: replace(spec, each=("given1:e", "given1:e")),
]


@st.composite
def broken_requests(draw: st.DrawFn) -> Written:
    """Returns a request with one change that may make it invalid."""
    made = draw(written_requests())
    breaks_an_arg = draw(st.booleans())
    if breaks_an_arg and made.given:
        arg = draw(st.sampled_from(sorted(made.given)))
        made.given[arg] = draw(JSON)
        if made.given[arg] is None:
            del made.given[arg]
        return made
    places = [(name, inner) for name, spec in sorted(made.sequences.items()) for inner in spec.nodes]
    if places:
        name, inner = draw(st.sampled_from(places))
        nodes = dict(made.sequences[name].nodes)
        nodes[inner] = draw(st.sampled_from(_BREAKS))(nodes[inner])
        made.sequences[name] = replace(made.sequences[name], nodes=nodes)
    return made
