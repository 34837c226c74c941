"""Renders job chains as a text tree, for Graphviz, for Mermaid, or as JSON."""

from __future__ import annotations

from collections.abc import Callable

from spincycle_grpc.render.dot import to_dot
from spincycle_grpc.render.mermaid import to_mermaid
from spincycle_grpc.render.tree import to_tree
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_grpc.wire import encode

__all__ = ["FORMATS", "render"]


def _to_json(chain: JobChain) -> str:
    return f"{encode(chain).decode()}\n"


_RENDERERS: dict[str, Callable[[JobChain], str]] = {
    "text": to_tree,
    "dot": to_dot,
    "mermaid": to_mermaid,
    "json": _to_json,
}

FORMATS = tuple(_RENDERERS)
"""The names of the formats."""


def render(chain: JobChain, output_format: str) -> str:
    """Renders a job chain in one of FORMATS. The text ends with a line break.

    The time is linear in the size of the chain, even if its sequences nest deep.

    Raises:
        KeyError: The format does not exist.
    """
    return _RENDERERS[output_format](chain)
