"""`spincycle graph` prints the job chain of a request. It needs no server."""

from __future__ import annotations

from pathlib import Path

import click

from spincycle_grpc.cli.drawing import draw, format_option
from spincycle_grpc.written_args import parse_written_args
from spincycle_server.graph import ChainBuilder
from spincycle_server.job_factories import find_factory, knows_job_type
from spincycle_server.spec_files import usable_specs


@click.command("graph")
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.argument("request")
@click.argument("words", metavar="[ARG=VALUE | ARG:=JSON]...", nargs=-1)
@format_option
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
    click.echo(draw(chain, output_format), nl=False)
