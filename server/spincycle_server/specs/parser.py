"""Parses spec files, in both dialects of the original, and lists all problems.

v1 writes `sets: [a, b]` and requires `given` for each arg of a node. v2 writes
`sets: [{arg: a, as: b}]`, and `given` defaults to `expected`. A file may mix both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spincycle_server.specs.field_reader import FieldReader, TooManyAliasesError, positions_of
from spincycle_server.specs.model import (
    AclSpec,
    ApprovalSpec,
    ArgSpec,
    BackoffSpec,
    LimitSpec,
    NodeArg,
    NodeSet,
    NodeSpec,
    Position,
    SequenceSpec,
    Specs,
)
from spincycle_server.specs.problems import Problem, Severity
from spincycle_server.specs.yaml_tree import MapNode, Node, Scalar, YamlTextError, read_tree

_SEQUENCE_FIELDS = (
    "request",
    "args",
    "acl",
    "nodes",
    "timeout",
    "runner",
    "limits",
    "finally",
    "finallyTimeout",
)
_ARG_KINDS = ("required", "optional", "static")
_NODE_FIELDS = (
    "category",
    "type",
    "args",
    "sets",
    "deps",
    "each",
    "parallel",
    "stopAfterFailures",
    "retry",
    "retryWait",
    "timeout",
    "if",
    "eq",
    "roles",
    "approvals",
    "notByRequester",
    "message",
    "onTimeout",
)


@dataclass(frozen=True, slots=True)
class ParseResult:
    """The result of parsing spec files.

    Attributes:
        specs: All sequences that could be read, including those of files with problems.
        problems: All problems, by file and line.
    """

    specs: Specs
    problems: list[Problem]


def parse_specs(files: Mapping[str, bytes]) -> ParseResult:
    """Parses spec files. It never raises, whatever the files contain.

    Args:
        files: Maps file names to contents. If two files define a sequence of the same name, the file
            whose name sorts first wins.
    """
    sequences: dict[str, SequenceSpec] = {}
    problems: list[Problem] = []
    for file in sorted(files):
        found, file_problems = _parse_file(file, files[file])
        problems += file_problems
        for sequence in found:
            first = sequences.setdefault(sequence.name, sequence)
            if first is not sequence:
                message = f"sequence '{sequence.name}' is already defined in {first.position}: rename one"
                problems.append(_error(sequence.position, "DUPLICATE_SEQUENCE", message, sequence.name))
    return ParseResult(Specs(sequences), sorted(problems, key=lambda problem: problem.sort_key))


def _parse_file(file: str, data: bytes) -> tuple[list[SequenceSpec], list[Problem]]:
    try:
        tree = read_tree(data)
    except YamlTextError as error:
        return [], [_error(Position(file, error.line, error.column), "BAD_YAML", str(error))]
    if tree.root is None:
        return [], []
    reader = FieldReader(file, tree.size)
    sequences: list[SequenceSpec] = []
    try:
        top = reader.fields(tree.root, "", ("sequences",))
        if "sequences" in top:
            for name, key, value in reader.entries(top["sequences"], "sequences"):
                reader.sequence = name
                sequences.append(_sequence(reader, name, key, value))
                reader.sequence = ""
    except TooManyAliasesError:
        reader.problem(
            tree.root,
            "TOO_MANY_ALIASES",
            "aliases expand to too many values: write some of the values out",
        )
    return sequences, reader.problems


def _sequence(reader: FieldReader, name: str, key: Node, value: Node) -> SequenceSpec:
    fields = reader.fields(value, "", _SEQUENCE_FIELDS)
    kinds = reader.fields(fields["args"], "args", _ARG_KINDS) if "args" in fields else {}
    args = {
        kind: tuple(_arg(reader, item) for item in reader.items(kinds.get(kind), kind)) for kind in _ARG_KINDS
    }
    acl = tuple(_acl(reader, item) for item in reader.items(fields.get("acl"), "acl"))
    final = fields.get("finally")
    return SequenceSpec(
        name=name,
        request=reader.boolean(fields.get("request"), "request"),
        required=args["required"],
        optional=args["optional"],
        static=args["static"],
        acl=acl,
        nodes=_nodes(reader, fields.get("nodes"), "nodes"),
        timeout=reader.text(fields.get("timeout"), "timeout") or "",
        position=reader.position(key),
        runner=_labels(reader, fields["runner"]) if "runner" in fields else {},
        limits=tuple(_limit(reader, item) for item in reader.items(fields.get("limits"), "limits")),
        final_nodes=_nodes(reader, final, "finally"),
        final_timeout=reader.text(fields.get("finallyTimeout"), "finallyTimeout") or "",
        final_position=None if final is None else reader.position(final),
    )


def _nodes(reader: FieldReader, value: Node | None, field: str) -> dict[str, NodeSpec]:
    nodes: dict[str, NodeSpec] = {}
    for name, key, node in reader.entries(value, field) if value is not None else ():
        reader.node = name
        nodes[name] = _node(reader, name, key, node)
        reader.node = ""
    return nodes


def _labels(reader: FieldReader, value: Node) -> dict[str, str]:
    return {name: reader.text(text, "runner") or "" for name, _, text in reader.entries(value, "runner")}


def _arg(reader: FieldReader, item: Node) -> ArgSpec:
    fields = reader.fields(item, "args", ("name", "desc", "default"))
    return ArgSpec(
        name=reader.text(fields.get("name"), "name") or "",
        desc=reader.text(fields.get("desc"), "desc") or "",
        default=reader.text(fields.get("default"), "default"),
        position=reader.position(item),
    )


def _limit(reader: FieldReader, item: Node) -> LimitSpec:
    fields = reader.fields(item, "limits", ("key", "max", "policy"))
    highest = reader.count(fields.get("max"), "max")
    return LimitSpec(
        key=reader.text(fields.get("key"), "key") or "",
        max=1 if highest is None else highest,
        policy=reader.text(fields.get("policy"), "policy") or "",
        position=reader.position(item),
    )


def _acl(reader: FieldReader, item: Node) -> AclSpec:
    fields = reader.fields(item, "acl", ("role", "admin", "ops"))
    return AclSpec(
        role=reader.text(fields.get("role"), "role") or "",
        admin=reader.boolean(fields.get("admin"), "admin"),
        ops=reader.texts(fields.get("ops"), "ops"),
        position=reader.position(item),
    )


def _node(reader: FieldReader, name: str, key: Node, value: Node) -> NodeSpec:
    fields = reader.fields(value, "", _NODE_FIELDS)
    eq: dict[str, str] = {}
    if "eq" in fields:
        for word, _, target in reader.entries(fields["eq"], "eq"):
            eq[word] = reader.text(target, "eq") or ""
    parallel, window = _parallel(reader, fields.get("parallel"))
    retry_wait, backoff = _retry_wait(reader, fields.get("retryWait"))
    return NodeSpec(
        name=name,
        category=reader.text(fields.get("category"), "category") or "",
        type=reader.text(fields.get("type"), "type") or "",
        args=tuple(_node_arg(reader, item) for item in reader.items(fields.get("args"), "args")),
        sets=tuple(_node_set(reader, item) for item in reader.items(fields.get("sets"), "sets")),
        deps=reader.texts(fields.get("deps"), "deps"),
        each=reader.texts(fields.get("each"), "each"),
        parallel=parallel,
        window=window,
        stop_after_failures=reader.count(fields.get("stopAfterFailures"), "stopAfterFailures"),
        retry=reader.count(fields.get("retry"), "retry") or 0,
        retry_wait=retry_wait,
        backoff=backoff,
        timeout=reader.text(fields.get("timeout"), "timeout") or "",
        if_arg=reader.text(fields.get("if"), "if") or "",
        eq=eq,
        position=reader.position(key),
        positions=positions_of(reader, fields),
        approval=_approval(reader, fields),
    )


def _approval(reader: FieldReader, fields: Mapping[str, Node]) -> ApprovalSpec | None:
    category = fields.get("category")
    if not isinstance(category, Scalar) or category.text != "approval":
        return None
    not_by_requester = fields.get("notByRequester")
    return ApprovalSpec(
        roles=reader.texts(fields.get("roles"), "roles"),
        approvals=reader.count(fields.get("approvals"), "approvals"),
        by_requester=not_by_requester is not None and not reader.boolean(not_by_requester, "notByRequester"),
        message=reader.text(fields.get("message"), "message") or "",
        on_timeout=reader.text(fields.get("onTimeout"), "onTimeout") or "",
    )


def _parallel(reader: FieldReader, value: Node | None) -> tuple[int | None, str]:
    """Returns the limit and the window of `parallel`, which is a number or a map of both."""
    if not isinstance(value, MapNode):
        return reader.count(value, "parallel"), ""
    fields = reader.fields(value, "parallel", ("max", "window"))
    if "max" not in fields:
        reader.problem(value, "MISSING_MAX", "'parallel' needs 'max': set how many run at a time", "parallel")
    return reader.count(fields.get("max"), "max"), reader.text(fields.get("window"), "window") or ""


def _retry_wait(reader: FieldReader, value: Node | None) -> tuple[str, BackoffSpec | None]:
    """Returns the first pause of `retryWait`, and how it grows if `retryWait` is a map."""
    if not isinstance(value, MapNode):
        return reader.text(value, "retryWait") or "", None
    fields = reader.fields(value, "retryWait", ("first", "factor", "max", "jitter"))
    first = reader.text(fields.get("first"), "first") or ""
    if not first:
        message = "'retryWait' needs 'first': set the pause before the first retry"
        reader.problem(value, "MISSING_FIRST", message, "retryWait")
    return first, BackoffSpec(
        factor=reader.text(fields.get("factor"), "factor") or "",
        max=reader.text(fields.get("max"), "max") or "",
        jitter=reader.boolean(fields.get("jitter"), "jitter"),
    )


def _node_arg(reader: FieldReader, item: Node) -> NodeArg:
    fields = reader.fields(item, "args", ("expected", "given"))
    expected = reader.text(fields.get("expected"), "expected") or ""
    return NodeArg(expected, reader.text(fields.get("given"), "given") or expected, reader.position(item))


def _node_set(reader: FieldReader, item: Node) -> NodeSet:
    if not isinstance(item, MapNode):
        arg = reader.text(item, "sets") or ""
        return NodeSet(arg, arg, reader.position(item))
    fields = reader.fields(item, "sets", ("arg", "as"))
    arg = reader.text(fields.get("arg"), "arg") or ""
    return NodeSet(arg, reader.text(fields.get("as"), "as") or arg, reader.position(item))


def _error(position: Position, code: str, message: str, sequence: str = "") -> Problem:
    return Problem(position=position, severity=Severity.ERROR, code=code, message=message, sequence=sequence)
