"""Checks the calls of sequences: the called sequence, the args that it is given, the args that it sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from spincycle_server.specs.call_graph import called_by, calling_field
from spincycle_server.specs.each import each_pairs
from spincycle_server.specs.linter.arg_usage import NodeUsage, SequenceUsage
from spincycle_server.specs.linter.key_args import renamed_args
from spincycle_server.specs.linter.report import Report, Subject
from spincycle_server.specs.model import NOOP_SEQUENCE, NodeSpec, Position, SequenceSpec
from spincycle_server.specs.secret_names import is_secret_name

_SHOWN = 3


def check_call(
    report: Report,
    sequence: SequenceSpec,
    node: NodeUsage,
    uses: Mapping[str, SequenceUsage],
    shown: Mapping[str, Mapping[str, str]],
) -> None:
    """Checks a node against the sequences that it calls, if any.

    Args:
        report: Collects the problems.
        sequence: The sequence of the node.
        node: The arg usage of the node.
        uses: The arg usage of each sequence.
        shown: The args of each sequence that keys of limits show, see `key_args`.
    """
    subject = report.about(sequence, node.node)
    _check_sets_shown(subject, node.node, shown[sequence.name])
    targets = called_by(node.node)
    if targets:
        _CallCheck(subject, node, uses, shown).check(targets)


def _check_sets_shown(subject: Subject, node: NodeSpec, shown: Mapping[str, str]) -> None:
    """Checks that no key would show an arg that a node sets under a harmless name."""
    for one in node.sets:
        if one.as_name in shown and is_secret_name(one.arg):
            subject.error(
                "SECRET_IN_LIMIT", _secret(shown[one.as_name], one.arg, one.as_name), "sets", one.position
            )


def _secret(sequence: str, secret: str, name: str) -> str:
    return (
        f"a limit of sequence '{sequence}' would show arg '{secret}', whose name says that it is secret, "
        f"by way of '{name}': give another arg, or leave it out of the key"
    )


class _CallCheck:
    """Checks one node against the sequences that it calls."""

    def __init__(
        self,
        subject: Subject,
        node: NodeUsage,
        uses: Mapping[str, SequenceUsage],
        shown: Mapping[str, Mapping[str, str]],
    ) -> None:
        self._subject = subject
        self._node = node
        self._uses = uses
        self._shown = shown

    def check(self, targets: list[str]) -> None:
        for target in targets:
            if target not in self._uses and target != NOOP_SEQUENCE:
                message = f"sequence '{target}' does not exist: correct the name, or write the sequence"
                self._subject.error("UNKNOWN_SEQUENCE", message, calling_field(self._node.node))
            elif target in self._uses:
                self._check_required(self._uses[target].sequence)
                self._check_keys(self._shown[target])
        self._check_sets(targets)
        if all(target in self._uses or target == NOOP_SEQUENCE for target in targets):
            self._check_taken(targets)

    def _check_required(self, target: SequenceSpec) -> None:
        for arg in target.required:
            if arg.name and arg.name not in self._node.gives:
                message = f"sequence '{target.name}' requires arg '{arg.name}': give it"
                self._subject.error("REQUIRED_ARG_NOT_GIVEN", message, "args")

    def _check_keys(self, shown: Mapping[str, str]) -> None:
        """Checks that no key would show an arg that has a harmless name only in the called sequence."""
        for inside, outside, field, position in renamed_args(self._node.node) if shown else ():
            if inside in shown and is_secret_name(outside):
                message = _secret(shown[inside], outside, inside)
                self._subject.error("SECRET_IN_LIMIT", message, field, position)

    def _check_sets(self, targets: list[str]) -> None:
        for one in self._node.node.sets:
            if not one.arg or one.arg in self._node.gives:
                continue
            without = [target for target in targets if not self._is_set(target, one.arg)]
            unsure = [target for target in targets if not self._is_set(target, one.arg, surely=True)]
            if without:
                message = f"no node in {_listed(without)} sets arg '{one.arg}': set it there, or remove this"
                self._subject.error("NOT_SET_INSIDE", message, "sets", one.position)
            elif unsure:
                message = (
                    f"in {_listed(unsure)} only nodes with 'each' set arg '{one.arg}', "
                    "so it is missing if the list is empty: give it a default there"
                )
                self._subject.warning("SET_BY_EACH_ONLY", message, "sets", one.position)

    def _is_set(self, target: str, arg: str, *, surely: bool = False) -> bool:
        uses = self._uses.get(target)
        if uses is None:
            return target != NOOP_SEQUENCE  # A sequence that does not exist might set it.
        return arg in uses.declared or arg in (uses.sets_surely if surely else uses.sets)

    def _check_taken(self, targets: list[str]) -> None:
        taken = {one.arg for one in self._node.node.sets} | {self._node.node.if_arg}
        called = [self._uses[target] for target in targets if target in self._uses]
        for name, field, position in _given(self._node.node):
            if name in taken or any(name in uses.declared or name in uses.needs for uses in called):
                continue
            message = f"{_listed(targets)} does not use arg '{name}': remove it here, or declare it there"
            self._subject.warning("ARG_NOT_TAKEN", message, field, position)


def _given(node: NodeSpec) -> Iterator[tuple[str, str, Position | None]]:
    """Yields each arg that a node gives, except the `if` arg: name inside, field and position."""
    for arg in node.args:
        if arg.expected:
            yield arg.expected, "args", arg.position
    for pair in each_pairs(node):
        yield pair.element, "each", None


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"sequence {shown}{more}" if len(names) == 1 else f"sequences {shown}{more}"
