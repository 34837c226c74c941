"""Labels of the elements of `each`, by which people tell apart what a node has built."""

from __future__ import annotations

import json
from collections.abc import Sequence

from spincycle_grpc.job_paths import MAX_LABEL, shortened
from spincycle_server.graph.plan import NodePlan
from spincycle_server.specs.secret_names import is_secret_name

MAX_VALUE = 64
"""The longest value in a label, in characters. The middle of a longer one is left out."""

_ENCODER = json.JSONEncoder(ensure_ascii=False)


def element_labels(node: NodePlan, rows: Sequence[Sequence[object]]) -> list[str]:
    """Returns one label for each row of a node's lists. No two are equal.

    A label names the first element and its value (`host web7`), and further elements if values repeat. If
    that does not tell all rows apart, labels have the number of the row. An element whose name says that it
    is a secret is never shown.

    Args:
        node: The node.
        rows: The values of its elements, one row for each time that the node is built.
    """
    labels = [node.name if node.shares_elements else ""] * len(rows)
    is_named = False
    for place, pair in enumerate(node.each):
        if is_secret_name(pair.element) or is_secret_name(pair.list_arg):
            continue
        longer = [
            shortened(f"{label} {pair.element} {shown_value(row[place])}".lstrip(), MAX_LABEL)
            for label, row in zip(labels, rows, strict=True)
        ]
        count = len(set(longer))
        if not is_named or count > len(set(labels)):
            labels, is_named = longer, True
        if count == len(rows):
            return labels
    # The number is unique, so no two labels can end in the same way.
    return [
        f"{shortened(label or node.name, MAX_LABEL - 12)} #{number}" for number, label in enumerate(labels, 1)
    ]


def shown_value(value: object, longest: int = MAX_VALUE) -> str:
    """Returns a value for people: a text unchanged, any other value as JSON.

    A part of a value of more than `longest` characters becomes "…".
    """
    if isinstance(value, str):
        return shortened(value, longest)
    text = ""
    for part in _ENCODER.iterencode(value):  # A large value is not written whole.
        text += part
        if len(text) > longest:
            return f"{text[: longest - 1]}…"
    return text
