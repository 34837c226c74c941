"""Nodes of a YAML tree as the values that fields of specs have, and the problems met on the way.

Scalars are read as Go's yaml.v2 reads them, for which the original's specs were written: in a
field that is a text, `yes`, `100` and `2020-01-01` are those very texts; in one that is a bool,
`yes` and `on` are true.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from spincycle_server.specs.model import Position
from spincycle_server.specs.problems import Problem, Severity
from spincycle_server.specs.yaml_tree import ListNode, MapNode, Node, Scalar

_TRUE = frozenset(["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"])
_FALSE = frozenset(["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"])
_LARGEST_COUNT = 2**63 - 1


class TooManyAliasesError(Exception):
    """Following the aliases of a file takes far more steps than the file has nodes."""


class FieldReader:
    """Reads one file's nodes, and gathers the problems.

    Args:
        file: The name of the file.
        size: How many nodes the file has. A file may be read in a few times as many steps, aliases
            followed; beyond that they explode.
    """

    def __init__(self, file: str, size: int) -> None:
        self._file = file
        self._steps_left = 10 * size + 10_000
        self.problems: list[Problem] = []
        self.sequence = ""
        self.node = ""

    def position(self, node: Node) -> Position:
        """Returns where a node stands."""
        return Position(self._file, node.line, node.column)

    def problem(self, node: Node, code: str, message: str, field: str = "") -> None:
        """Notes an error."""
        self.problems.append(
            Problem(
                position=self.position(node),
                severity=Severity.ERROR,
                code=code,
                message=message,
                sequence=self.sequence,
                node=self.node,
                field=field,
            )
        )

    def fields(self, node: Node, field: str, known: Iterable[str]) -> dict[str, Node]:
        """Returns the fields of a map by name; unknown ones are problems, null ones are left out."""
        known = tuple(known)
        fields: dict[str, Node] = {}
        for name, key, value in self.entries(node, field):
            if name not in known:
                where = f" of {field}" if field else ""
                self.problem(key, "UNKNOWN_FIELD", f"unknown field '{name}'{where}: {_one_of(known)}", name)
            elif not _is_null(value):
                fields[name] = value
        return fields

    def entries(self, node: Node, field: str) -> Iterator[tuple[str, Node, Node]]:
        """Goes through a map: its keys as texts, with their nodes and values. No map, or null: nothing.

        A key that is there twice is a problem; the first one stands. What `<<` merges in comes
        last, where it is not there already.
        """
        self._step(node)
        if _is_null(node):
            return
        if not isinstance(node, MapNode):
            self._wrong(node, "a map", field)
            return
        seen: dict[str, Node] = {}
        merged: list[Node] = []
        for key, value in node.items:
            if isinstance(key, Scalar) and key.plain and key.text == "<<":
                merged += value.items if isinstance(value, ListNode) else [value]
                continue
            name = self.text(key, "key")
            if name is None:
                continue
            if name in seen:
                self.problem(
                    key, "DUPLICATE_KEY", f"'{name}' is there already, in line {seen[name].line}", name
                )
                continue
            seen[name] = key
            yield name, key, value
        for part in merged:
            for name, key, value in self.entries(part, "<<"):
                if name not in seen:
                    seen[name] = key
                    yield name, key, value

    def items(self, node: Node | None, field: str) -> list[Node]:
        """Returns the items of a list. None or null: none."""
        if node is None or _is_null(node):
            return []
        self._step(node)
        if not isinstance(node, ListNode):
            self._wrong(node, "a list", field)
            return []
        for item in node.items:
            self._step(item)
        return node.items

    def text(self, node: Node | None, field: str) -> str | None:
        """Returns a scalar as it is written. None or null, and anything else: None."""
        if node is None or _is_null(node):
            return None
        self._step(node)
        if not isinstance(node, Scalar):
            self._wrong(node, "a text", field)
            return None
        return node.text

    def texts(self, node: Node | None, field: str) -> tuple[str, ...]:
        """Returns a list of texts."""
        return tuple(text for item in self.items(node, field) if (text := self.text(item, field)) is not None)

    def boolean(self, node: Node | None, field: str) -> bool:
        """Returns a bool. None or null: False."""
        text = self.text(node, field)
        if node is None or text is None or text in _FALSE:
            return False
        if text in _TRUE and isinstance(node, Scalar) and node.plain:
            return True
        self._wrong(node, "true or false", field)
        return False

    def count(self, node: Node | None, field: str) -> int | None:
        """Returns a whole number from 0. None, null and anything else: None."""
        text = self.text(node, field)
        if node is None or text is None:
            return None
        number = _whole_number(text) if isinstance(node, Scalar) and node.plain else None
        if number is None or not 0 <= number <= _LARGEST_COUNT:
            self._wrong(node, "a whole number from 0", field)
            return None
        return number

    def _wrong(self, node: Node, expected: str, field: str) -> None:
        got = {MapNode: "a map", ListNode: "a list"}.get(type(node)) or f"'{_shown(node)}'"
        where = f"'{field}' " if field else ""
        self.problem(node, "WRONG_TYPE", f"{where}must be {expected}, not {got}", field)

    def _step(self, node: Node) -> None:
        self._steps_left -= 1
        if self._steps_left < 0:
            raise TooManyAliasesError


def positions_of(reader: FieldReader, fields: Mapping[str, Node]) -> dict[str, Position]:
    """Returns where the values of fields stand."""
    return {name: reader.position(node) for name, node in fields.items()}


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.is_null


def _shown(node: Node) -> str:
    text = node.text if isinstance(node, Scalar) else ""
    return text if len(text) <= 40 else f"{text[:40]}..."


def _one_of(words: tuple[str, ...]) -> str:
    return f"must be one of {', '.join(words)}" if len(words) > 1 else f"must be {words[0]}"


def _whole_number(text: str) -> int | None:
    """Returns the number that yaml.v2 reads: decimal, 0x, 0b, octal by a leading 0 or 0o, with `_` in it."""
    digits = text.replace("_", "").lower()
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-") if digits[:1] in ("+", "-") else digits
    if not digits.isascii() or not digits.isalnum() or len(digits) > 70:
        return None
    base = {"0x": 16, "0b": 2, "0o": 8}.get(digits[:2])
    try:
        if base is None:
            return sign * int(digits, 8 if digits.startswith("0") else 10)
        return sign * int(digits[2:], base)
    except ValueError:
        return None
