"""The model of parsed request specs: sequences of nodes, each with its position in a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

CATEGORIES = ("job", "sequence", "conditional", "approval")
"""The categories of nodes."""

OPERATIONS = ("start", "stop", "view", "log", "retry", "pause")
"""The operations that an access list can allow."""

NOOP_SEQUENCE = "noop"
"""The name of the empty sequence that exists unless the specs define a sequence of this name."""


@dataclass(frozen=True, slots=True)
class Position:
    """A position in a spec file. Lines and columns count from 1; 0 stands for the whole file."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class ArgSpec:
    """One arg of a sequence. `default` is None if the spec gives no default."""

    name: str
    desc: str
    default: str | None
    position: Position


@dataclass(frozen=True, slots=True)
class AclSpec:
    """One entry of a sequence's access list: a role and the operations that it may use."""

    role: str
    admin: bool
    ops: tuple[str, ...]
    position: Position

    def allows(self, operation: str) -> bool:
        """Whether the entry allows an operation to its role. Who may start requests may retry them too."""
        return self.admin or operation in self.ops or (operation == "retry" and "start" in self.ops)


@dataclass(frozen=True, slots=True)
class NodeArg:
    """One arg that a node is given: `expected` is its name inside the node, `given` its name outside."""

    expected: str
    given: str
    position: Position


@dataclass(frozen=True, slots=True)
class NodeSet:
    """One arg that a node sets: `arg` is its name inside the node, `as_name` its name outside."""

    arg: str
    as_name: str
    position: Position


WINDOWS = ("batches", "sliding")
"""How `parallel` limits the elements of `each`."""


@dataclass(frozen=True, slots=True)
class BackoffSpec:
    """How the pauses before retries grow, as written. `max` is a duration, or "" for the default."""

    factor: str
    max: str
    jitter: bool


LIMIT_POLICIES = ("queue", "refuse", "replace")
"""What happens if a limit is reached."""


@dataclass(frozen=True, slots=True)
class LimitSpec:
    """One limit of a sequence.

    Attributes:
        key: The key as written; `specs.limits` parses it.
        max: How many may hold the key. The parser does not check it; the linter does.
        policy: One of LIMIT_POLICIES, or "". The parser does not check it; the linter does.
    """

    key: str
    max: int
    policy: str
    position: Position


@dataclass(frozen=True, slots=True)
class ApprovalSpec:
    """What a node of the category `approval` asks, as written. The parser checks none of it.

    Attributes:
        roles: Callers with one of them may decide.
        approvals: How many people must approve; None for one.
        by_requester: Whether the user who created the request may decide too.
        message: The text for those who decide, with the names of args in braces.
        on_timeout: "fail", "continue", or "" for the default.
    """

    roles: tuple[str, ...] = ()
    approvals: int | None = None
    by_requester: bool = False
    message: str = ""
    on_timeout: str = ""


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One node of a sequence.

    Attributes:
        category: One of CATEGORIES. The parser does not check it; the linter does.
        type: The job type or sequence name; "" for a conditional.
        each: The `list:element` pairs as written; `specs.each` parses them.
        parallel: How many items of `each` run in parallel; None for all.
        window: One of WINDOWS, or "". The parser does not check it; the linter does.
        stop_after_failures: After how many failed items no further one begins; None if the spec does not say.
        retry: The maximum number of retries after the first try.
        retry_wait: The pause before the first retry: a duration as written, or "".
        backoff: How the pauses grow; None if all are equal.
        timeout: A duration as written, or "".
        if_arg: The arg whose value a conditional compares, or "".
        eq: For a conditional: maps values to sequence names, in the order of the file.
        positions: Maps each field name, as in the file, to the position of its value.
        approval: What an approval asks; None for a node of another category.
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
    window: str = ""
    stop_after_failures: int | None = None
    backoff: BackoffSpec | None = None
    approval: ApprovalSpec | None = None


@dataclass(frozen=True, slots=True)
class SequenceSpec:
    """One sequence: its args and its nodes, both in the order of the file.

    Attributes:
        timeout: The timeout of requests of this type: a duration as written, or "".
        runner: The labels that a runner must have to run requests of this type.
        limits: The limits that requests of this type count for.
        final_nodes: The nodes of its `finally`, which run once it has ended in any way.
        final_timeout: How long these may run: a duration as written, or "" for the default.
        final_position: Where `finally` is.
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
    runner: Mapping[str, str] = field(default_factory=dict)
    limits: tuple[LimitSpec, ...] = ()
    final_nodes: Mapping[str, NodeSpec] = field(default_factory=dict)
    final_timeout: str = ""
    final_position: Position | None = None

    @property
    def all_args(self) -> tuple[ArgSpec, ...]:
        """Its required args, then its optional and its static ones."""
        return (*self.required, *self.optional, *self.static)

    @property
    def all_nodes(self) -> Iterator[NodeSpec]:
        """Yields its nodes, and then those of its `finally`."""
        yield from self.nodes.values()
        yield from self.final_nodes.values()


@dataclass(frozen=True, slots=True)
class Specs:
    """All sequences of a specs directory, by name."""

    sequences: Mapping[str, SequenceSpec]

    @property
    def request_types(self) -> frozenset[str]:
        """The names of all sequences that are requests."""
        return frozenset(name for name, sequence in self.sequences.items() if sequence.request)

    @property
    def job_types(self) -> frozenset[str]:
        """The types of all jobs that chains can have. Every sequence begins and ends with a noop."""
        return frozenset(["noop"]).union(
            node.type
            for sequence in self.sequences.values()
            for node in sequence.all_nodes
            if node.category == "job"
        )
