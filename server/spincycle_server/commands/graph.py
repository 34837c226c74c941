"""`spincycle graph` prints the job chain of a request. It needs no server."""

from __future__ import annotations

from pathlib import Path

import click

from spincycle_grpc.graphviz import draw_svg
from spincycle_grpc.render import render
from spincycle_grpc.written_args import parse_written_args
from spincycle_server.graph import ChainBuilder
from spincycle_server.job_factories import find_factory, knows_job_type
from spincycle_server.spec_files import usable_specs

_FORMATS = ("tree", "dot", "mermaid", "json", "svg")


@click.command("graph")
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.argument("request")
@click.argument("words", metavar="[ARG=VALUE | ARG:=JSON]...", nargs=-1)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(_FORMATS),
    default="tree",
    show_default=True,
    help="Output format. svg needs Graphviz.",
)
@click.option(
    "--jobs",
    metavar="MODULE:ATTRIBUTE",
    envvar="SPINCYCLE_JOBS",
    help="Job factory to ask before the installed ones and the built-in one.",
)
def graph_command(
    directory: Path, request: str, words: tuple[str, ...], output_format: str, jobs: str | None
) -> None:
    """Print the job chain of REQUEST, built from the specs in DIR.

    The job factory creates the jobs, but no job runs.
    """
    args = parse_written_args(words)
    factory = find_factory(jobs or "")
    specs, _ = usable_specs(directory, knows_job_type(factory))
    chain = ChainBuilder(specs, factory).build(request, args, "").job_chain
    if output_format == "svg":
        drawing = draw_svg(render(chain, "dot"))
    else:
        drawing = render(chain, "text" if output_format == "tree" else output_format)
    click.echo(drawing, nl=False)
