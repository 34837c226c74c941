"""Reads the nodes of a YAML tree as the values of spec fields, and collects the problems.

Scalars are read as Go's yaml.v2 reads them, because the original's specs were written for it. In a
text field, `yes`, `100` and `2020-01-01` are texts. In a bool field, `yes` and `on` are true.
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
    """Reading a file takes far more steps than the file has nodes, because its aliases expand too much."""


class FieldReader:
    """Reads the nodes of one file and collects the problems.

    Args:
        file: The name of the file.
        size: The number of nodes in the file. It bounds the number of steps, because a few nested
            aliases can expand to billions of nodes.
    """

    def __init__(self, file: str, size: int) -> None:
        self._file = file
        self._steps_left = 10 * size + 10_000
        self.problems: list[Problem] = []
        self.sequence = ""
        self.node = ""

    def position(self, node: Node) -> Position:
        """Returns the position of a node."""
        return Position(self._file, node.line, node.column)

    def problem(self, node: Node, code: str, message: str, field: str = "") -> None:
        """Records an error."""
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
        """Returns the fields of a map by name, without null fields. Unknown fields are problems."""
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
        """Yields the entries of a map: key as text, node of the key, value. Null has no entries.

        A node that is not a map is a problem. So is a duplicate key, and its first entry wins. The
        entries that `<<` merges come last, without keys that the map has itself.
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
                    key,
                    "DUPLICATE_KEY",
                    f"duplicate key '{name}', first in line {seen[name].line}",
                    name,
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
        """Returns the items of a list. None and null have no items; any other node is a problem."""
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
        """Returns a scalar as written, or None for None and null. Any other node is a problem."""
        if node is None or _is_null(node):
            return None
        self._step(node)
        if not isinstance(node, Scalar):
            self._wrong(node, "a string", field)
            return None
        return node.text

    def texts(self, node: Node | None, field: str) -> tuple[str, ...]:
        """Returns the texts of a list."""
        return tuple(text for item in self.items(node, field) if (text := self.text(item, field)) is not None)

    def boolean(self, node: Node | None, field: str) -> bool:
        """Returns a bool; False for None and null."""
        text = self.text(node, field)
        if node is None or text is None or text in _FALSE:
            return False
        if text in _TRUE and isinstance(node, Scalar) and node.plain:
            return True
        self._wrong(node, "true or false", field)
        return False

    def count(self, node: Node | None, field: str) -> int | None:
        """Returns an integer of at least 0, or None for None and null. Any other node is a problem."""
        text = self.text(node, field)
        if node is None or text is None:
            return None
        number = _whole_number(text) if isinstance(node, Scalar) and node.plain else None
        if number is None or not 0 <= number <= _LARGEST_COUNT:
            self._wrong(node, "an integer of at least 0", field)
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
    """Returns the positions of the fields' values."""
    return {name: reader.position(node) for name, node in fields.items()}


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.is_null


def _shown(node: Node) -> str:
    text = node.text if isinstance(node, Scalar) else ""
    return text if len(text) <= 40 else f"{text[:40]}..."


def _one_of(words: tuple[str, ...]) -> str:
    return f"must be one of {', '.join(words)}" if len(words) > 1 else f"must be {words[0]}"


def _whole_number(text: str) -> int | None:
    """Returns an integer as yaml.v2 reads it: decimal, 0x, 0b, octal with 0 or 0o, `_` anywhere in it."""
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
