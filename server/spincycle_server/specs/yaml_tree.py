"""Reads YAML text as a tree of nodes with positions. The tree does not interpret the values.

A loop builds the tree from the parser's events, so deep nesting needs no recursion. An alias becomes
the node that it names, so one node may occur in the tree many times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

MAX_DEPTH = 100
"""The maximum number of levels of nested lists and maps. Specs need eight."""

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(eq=False, slots=True)
class Scalar:
    """A scalar. `plain` means written without quotes, so it may stand for a number, a bool or null."""

    text: str
    plain: bool
    line: int
    column: int

    @property
    def is_null(self) -> bool:
        """Whether it stands for null."""
        return self.plain and self.text in _NULLS


@dataclass(eq=False, slots=True)
class ListNode:
    """A list."""

    line: int
    column: int
    items: list[Node] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class MapNode:
    """A map: all entries in the order of the text, including those with duplicate keys."""

    line: int
    column: int
    items: list[tuple[Node, Node]] = field(default_factory=list)


Node: TypeAlias = Scalar | ListNode | MapNode


class YamlTextError(ValueError):
    """The text is not YAML, or uses YAML that specs do not allow. Lines and columns count from 1."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


@dataclass(slots=True)
class Tree:
    """The tree of a text: its root (None if the text is empty), and how many nodes the text itself has."""

    root: Node | None
    size: int


def read_tree(data: bytes) -> Tree:
    """Returns the tree of one YAML document.

    Raises:
        YamlTextError: The text is not UTF-8 or not YAML, has several documents or nests more deeply
            than MAX_DEPTH. Or an alias has no anchor, or is inside the node that it names.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise YamlTextError(
            "the file is not UTF-8", line, error.start - data.rfind(b"\n", 0, error.start)
        ) from error
    try:
        return _TreeBuilder().build(yaml.parse(text, Loader=yaml.CSafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(part for part in (error.context, error.problem) if part)
        raise YamlTextError(said, mark.line + 1 if mark else 0, mark.column + 1 if mark else 0) from error
    except yaml.reader.ReaderError as error:
        raise YamlTextError(*_reader_problem(error, text)) from error
    except yaml.YAMLError as error:
        raise YamlTextError(str(error)) from error


def _reader_problem(error: yaml.reader.ReaderError, text: str) -> tuple[str, int, int]:
    """Returns a message about the first forbidden character, its line and its column.

    The error itself counts in bytes.
    """
    for number, line in enumerate(text.splitlines() or [""], start=1):
        for column, character in enumerate(line, start=1):
            if not (character.isprintable() or character in "\t\x85\xa0\u2028\u2029\ufeff"):
                return f"YAML does not allow the character U+{ord(character):04X}", number, column
    return f"the file cannot be read: {error.reason}", 0, 0


class _TreeBuilder:
    def __init__(self) -> None:
        self._root: Node | None = None
        self._stack: list[tuple[ListNode | MapNode, str | None]] = []
        self._keys: list[Node | None] = []  # for each map on the stack, the key whose value is next
        self._anchors: dict[str, Node] = {}
        self._size = 0
        self._documents = 0

    def build(self, events: Iterator[Event]) -> Tree:
        for event in events:
            mark = event.start_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
            if isinstance(event, ScalarEvent):
                # implicit[0] is true for plain scalars and false for quoted ones, even if they are empty.
                self._add(Scalar(event.value, event.implicit[0], line, column), event.anchor)
            elif isinstance(event, SequenceStartEvent):
                self._open(ListNode(line, column), event.anchor)
            elif isinstance(event, MappingStartEvent):
                self._open(MapNode(line, column), event.anchor)
            elif isinstance(event, SequenceEndEvent | MappingEndEvent):
                node, anchor = self._stack.pop()
                self._keys.pop()
                self._add(node, anchor)
            elif isinstance(event, AliasEvent):
                self._add(self._named(event.anchor, line, column), None)
            elif isinstance(event, DocumentStartEvent):
                self._documents += 1
                if self._documents > 1:
                    raise YamlTextError("the file has several documents: use a file for each", line, column)
        return Tree(self._root, self._size)

    def _named(self, anchor: str | None, line: int, column: int) -> Node:
        node = self._anchors.get(anchor or "")
        if node is None:
            raise YamlTextError(
                f"alias {anchor!r} has no anchor that ends before it",
                line,
                column,
            )
        return node

    def _open(self, node: ListNode | MapNode, anchor: str | None) -> None:
        if len(self._stack) == MAX_DEPTH:
            raise YamlTextError(
                f"lists and maps nest more than {MAX_DEPTH} levels deep", node.line, node.column
            )
        self._stack.append((node, anchor))
        self._keys.append(None)

    def _add(self, node: Node, anchor: str | None) -> None:
        self._size += 1
        if anchor:
            self._anchors[anchor] = node
        if not self._stack:
            self._root = node
            return
        parent = self._stack[-1][0]
        if isinstance(parent, ListNode):
            parent.items.append(node)
        elif (key := self._keys[-1]) is None:
            self._keys[-1] = node
        else:
            parent.items.append((key, node))
            self._keys[-1] = None
