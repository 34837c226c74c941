"""Specs in Python, as short as in YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spincycle_server.specs.model import (
    ArgSpec,
    BackoffSpec,
    NodeArg,
    NodeSet,
    NodeSpec,
    Position,
    SequenceSpec,
    Specs,
)

NOWHERE = Position("specs.yaml")


def node(
    name: str,
    category: str = "job",
    node_type: str = "noop",
    *,
    args: Mapping[str, str] | Sequence[str] = (),
    sets: Mapping[str, str] | Sequence[str] = (),
    deps: Sequence[str] = (),
    each: Sequence[str] = (),
    parallel: int | None = None,
    retry: int = 0,
    retry_wait: str = "",
    timeout: str = "",
    window: str = "",
    stop_after_failures: int | None = None,
    backoff: BackoffSpec | None = None,
    if_arg: str = "",
    eq: Mapping[str, str] | None = None,
) -> NodeSpec:
    """Returns a node. `args` maps expected to given and `sets` maps arg to as; a list means equal names."""
    return NodeSpec(
        name=name,
        category=category,
        type=node_type,
        args=tuple(NodeArg(expected, given, NOWHERE) for expected, given in _pairs(args)),
        sets=tuple(NodeSet(arg, as_name, NOWHERE) for arg, as_name in _pairs(sets)),
        deps=tuple(deps),
        each=tuple(each),
        parallel=parallel,
        retry=retry,
        retry_wait=retry_wait,
        timeout=timeout,
        window=window,
        stop_after_failures=stop_after_failures,
        backoff=backoff,
        if_arg=if_arg,
        eq=eq or {},
        position=NOWHERE,
    )


def _pairs(names: Mapping[str, str] | Sequence[str]) -> list[tuple[str, str]]:
    if isinstance(names, Mapping):
        return list(names.items())
    return [(name, name) for name in names]


def sequence(
    name: str,
    *nodes: NodeSpec,
    request: bool = False,
    required: Sequence[str] = (),
    optional: Mapping[str, str] | None = None,
    static: Mapping[str, str] | None = None,
    timeout: str = "",
) -> SequenceSpec:
    """Returns a sequence. Optional and static args map names to defaults."""
    return SequenceSpec(
        name=name,
        request=request,
        required=tuple(ArgSpec(arg, f"what {arg} is", None, NOWHERE) for arg in required),
        optional=_with_defaults(optional),
        static=_with_defaults(static),
        acl=(),
        nodes={spec.name: spec for spec in nodes},
        timeout=timeout,
        position=NOWHERE,
    )


def _with_defaults(defaults: Mapping[str, str] | None) -> tuple[ArgSpec, ...]:
    return tuple(ArgSpec(arg, f"what {arg} is", text, NOWHERE) for arg, text in (defaults or {}).items())


def specs(*sequences: SequenceSpec) -> Specs:
    return Specs({spec.name: spec for spec in sequences})
