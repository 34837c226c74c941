"""What request specs say, once parsed: sequences of nodes, each with where it stands in which file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a spec file. Lines and columns count from 1; 0 means the file as a whole."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class ArgSpec:
    """One arg that a sequence takes. `default` is None where the spec gives none."""

    name: str
    desc: str
    default: str | None
    position: Position


@dataclass(frozen=True, slots=True)
class AclSpec:
    """One entry of a sequence's access list: a role, and which operations it may do."""

    role: str
    admin: bool
    ops: tuple[str, ...]
    position: Position


@dataclass(frozen=True, slots=True)
class NodeArg:
    """One arg that a node is given: `expected` is its name inside, `given` its name outside."""

    expected: str
    given: str
    position: Position


@dataclass(frozen=True, slots=True)
class NodeSet:
    """One arg that a node sets: `arg` is its name inside, `as_name` its name outside."""

    arg: str
    as_name: str
    position: Position


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One node of a sequence.

    Attributes:
        category: "job", "sequence" or "conditional"; anything else is the linter's to refuse.
        type: The job type or sequence name; "" for a conditional.
        each: The `list:element` pairs as written.
        parallel: How many of `each` run side by side; None for all.
        retry: Tries after the first one.
        retry_wait: A duration as written, or "".
        timeout: A duration as written, or "".
        if_arg: The arg that a conditional looks at, or "".
        eq: For a conditional, value to sequence name, in the order of the file.
        positions: Field name, as in the file, to where its value stands.
    """

    name: str
    category: str
    type: str
    args: tuple[NodeArg, ...]
    sets: tuple[NodeSet, ...]
    deps: tuple[str, ...]
    each: tuple[str, ...]
    parallel: int | None
    retry: int
    retry_wait: str
    timeout: str
    if_arg: str
    eq: Mapping[str, str]
    position: Position
    positions: Mapping[str, Position] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SequenceSpec:
    """One sequence: the args that it takes and its nodes, both in the order of the file.

    `timeout` is the limit of a request made from it, as written, or "".
    """

    name: str
    request: bool
    required: tuple[ArgSpec, ...]
    optional: tuple[ArgSpec, ...]
    static: tuple[ArgSpec, ...]
    acl: tuple[AclSpec, ...]
    nodes: Mapping[str, NodeSpec]
    timeout: str
    position: Position


@dataclass(frozen=True, slots=True)
class Specs:
    """All sequences of a specs directory by name, as read-only as their parts."""

    sequences: Mapping[str, SequenceSpec]
