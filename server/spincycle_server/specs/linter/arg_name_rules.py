"""Checks the names of args: those that a sequence declares, gives to its nodes, and takes from them."""

from __future__ import annotations

from spincycle_server.specs.linter.report import Report, Subject
from spincycle_server.specs.model import ArgSpec, NodeSpec, Position, SequenceSpec


class ArgNameRules:
    """Checks that the args of one sequence and of its nodes have names, and each name only one meaning.

    Args:
        report: Collects the problems.
        sequence: The sequence.
    """

    def __init__(self, report: Report, sequence: SequenceSpec) -> None:
        self._report = report
        self._sequence = sequence

    def check(self) -> None:
        """Runs all checks."""
        self._check_declared()
        for node in self._sequence.all_nodes:
            subject = self._report.about(self._sequence, node)
            _check_given(subject, node)
            _check_set(subject, node)

    def _check_declared(self) -> None:
        sequence, subject = self._sequence, self._report.about(self._sequence)
        duplicate = "duplicate arg '{name}', first in line {line}: remove one"
        names = _Names(subject, "args", "DUPLICATE_ARG", duplicate)
        kinds = (
            ("required", sequence.required),
            ("optional", sequence.optional),
            ("static", sequence.static),
        )
        for kind, args in kinds:
            for arg in args:
                unnamed = f"this {kind} arg has no name: give it one"
                names.add(arg.name, arg.position, unnamed, is_named=bool(arg.name))
                _check_default(subject, kind, arg)


class _Names:
    """The names in one field.

    Args:
        subject: Records the problems.
        field: The field.
        code: The code of a problem with a name that stands there twice.
        message: Its message, with `{name}`, and `{line}` for the line in which the name stands first.
    """

    def __init__(self, subject: Subject, field: str, code: str, message: str) -> None:
        self._subject = subject
        self._field = field
        self._code = code
        self._message = message
        self._lines: dict[str, int] = {}

    def add(self, name: str, position: Position, unnamed: str, *, is_named: bool) -> bool:
        """Adds the name of an arg. Returns whether the arg has a name, and one of its own.

        Args:
            name: The name.
            position: The position of the arg.
            unnamed: The message if a name is missing.
            is_named: Whether none is missing.
        """
        first = self._lines.get(name)
        self._lines.setdefault(name, position.line)
        if not is_named:
            self._subject.error("UNNAMED_ARG", unnamed, self._field, position)
        elif first is not None:
            message = self._message.format(name=name, line=first)
            self._subject.error(self._code, message, self._field, position)
        else:
            return True
        return False


def _check_default(subject: Subject, kind: str, arg: ArgSpec) -> None:
    if kind == "required" and arg.default is not None:
        message = f"required arg '{arg.name}' has a default: remove the default, or make the arg optional"
        subject.error("DEFAULT_ON_REQUIRED", message, "args", arg.position)
    if kind != "required" and arg.default is None:
        message = f"{kind} arg '{arg.name}' has no default: give it one"
        subject.error("MISSING_DEFAULT", message, "args", arg.position)


def _check_given(subject: Subject, node: NodeSpec) -> None:
    duplicate = "duplicate expected arg '{name}', first in line {line}: remove one"
    names = _Names(subject, "args", "DUPLICATE_EXPECTED", duplicate)
    unnamed = "this arg has no name: set 'expected', and 'given' if it differs"
    given: dict[str, str] = {}
    for arg in node.args:
        is_named = bool(arg.expected and arg.given)
        if names.add(arg.expected, arg.position, unnamed, is_named=is_named) and arg.given in given:
            message = (
                f"arg '{arg.given}' is given twice, as '{given[arg.given]}' and as '{arg.expected}': "
                "remove one if this is a mistake"
            )
            subject.warning("GIVEN_TWICE", message, "args", arg.position)
        if node.category == "conditional" and arg.expected == node.if_arg != arg.given:
            message = f"the 'if' arg '{node.if_arg}' hides this arg: rename 'expected'"
            subject.warning("HIDDEN_ARG", message, "args", arg.position)
        given.setdefault(arg.given, arg.expected)


def _check_set(subject: Subject, node: NodeSpec) -> None:
    duplicate = "arg '{name}' is already set in line {line}: remove or rename one"
    names = _Names(subject, "sets", "DUPLICATE_SET", duplicate)
    unnamed = "this arg has no name: give it one"
    for one in node.sets:
        names.add(one.as_name, one.position, unnamed, is_named=bool(one.arg and one.as_name))
