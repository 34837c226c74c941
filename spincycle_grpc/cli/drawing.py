"""Prints job chains in the formats of `spinc plan` and `spinc graph`."""

from __future__ import annotations

import sys

import click

from spincycle_grpc.cli.output import printable_lines, show_json
from spincycle_grpc.graphviz import draw_svg
from spincycle_grpc.render import render
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_grpc.wire import encode

_FORMATS = ("tree", "dot", "mermaid", "json", "svg")

format_option = click.option(
    "--format",
    "output_format",
    type=click.Choice(_FORMATS),
    default="tree",
    show_default=True,
    help="Output format. svg needs Graphviz.",
)
"""The option that chooses a format."""


def show_chain(chain: JobChain, output_format: str) -> None:
    """Prints a job chain. On a terminal, characters that are not printable are escaped.

    Raises:
        SpinCycleError: Graphviz is missing or failed.
    """
    if output_format == "json":
        show_json(encode(chain))
        return
    text = draw(chain, output_format)
    if sys.stdout.isatty():
        text = "".join(f"{line}\n" for line in printable_lines(text))
    click.echo(text, nl=False)


def draw(chain: JobChain, output_format: str) -> str:
    """Returns the drawing of a job chain in one of the formats.

    Raises:
        SpinCycleError: Graphviz is missing or failed.
    """
    if output_format == "svg":
        return draw_svg(render(chain, "dot"))
    return render(chain, "text" if output_format == "tree" else output_format)
