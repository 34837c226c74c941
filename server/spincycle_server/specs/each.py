"""The `each` field of a node: the only parser of it, and every rule that its text must follow.

The linter reports the problems; the builder refuses a node that has an error among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from spincycle_server.specs.model import NodeSpec
from spincycle_server.specs.problems import Severity


@dataclass(frozen=True, slots=True)
class EachPair:
    """One `list:element` pair: the node is built once for each item of the list.

    Attributes:
        list_arg: The arg that holds the list.
        element: The arg that holds the item, inside what is built.
    """

    list_arg: str
    element: str

    def __str__(self) -> str:
        return f"{self.list_arg}:{self.element}"


@dataclass(frozen=True, slots=True)
class EachProblem:
    """A problem of an `each` field. The fields are those of `Problem`."""

    severity: Severity
    code: str
    message: str


def parse_each_pair(text: str) -> EachPair | None:
    """Returns the pair that a text stands for, or None if it is not exactly `list:element`."""
    list_arg, _, element = text.partition(":")
    return EachPair(list_arg, element) if list_arg and element and ":" not in element else None


def each_pairs(node: NodeSpec) -> list[EachPair]:
    """Returns the well-formed pairs of a node, in the order of the file."""
    return [pair for text in node.each if (pair := parse_each_pair(text))]


def each_problems(node: NodeSpec) -> Iterator[EachProblem]:
    """Yields the problems of a node's `each`, in the order of the file."""
    expected = {arg.expected for arg in node.args}
    elements: set[str] = set()
    lists: dict[str, str] = {}
    for text in node.each:
        pair = parse_each_pair(text)
        if pair is None:
            message = f"'{text}' must be list:element: the name of a list arg and a name for its items"
            yield EachProblem(Severity.ERROR, "BAD_EACH", message)
            continue
        if pair.element in elements:
            message = f"element '{pair.element}' appears twice: give each list an element of its own"
            yield EachProblem(Severity.ERROR, "DUPLICATE_ELEMENT", message)
        elif pair.element in expected:
            message = f"element '{pair.element}' is also an expected arg: rename one of them"
            yield EachProblem(Severity.ERROR, "ELEMENT_IS_ARG", message)
        elif pair.list_arg in lists:
            message = (
                f"list '{pair.list_arg}' appears twice, for '{lists[pair.list_arg]}' and for "
                f"'{pair.element}': remove one if this is a mistake"
            )
            yield EachProblem(Severity.WARNING, "LIST_TWICE", message)
        if node.category == "conditional" and pair.element == node.if_arg:
            message = f"element '{pair.element}' hides the 'if' arg: rename it unless this is intended"
            yield EachProblem(Severity.WARNING, "HIDDEN_ARG", message)
        elements.add(pair.element)
        lists.setdefault(pair.list_arg, pair.element)
