"""`spinc plan`: shows the jobs that a request would run."""

from __future__ import annotations

import sys

import click

from spincycle_grpc.cli.arguments import parse_words
from spincycle_grpc.cli.output import printable_lines, show_json
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.graphviz import draw_svg
from spincycle_grpc.render import render
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_grpc.wire import encode

_FORMATS = ("tree", "dot", "mermaid", "json", "svg")


@click.command("plan")
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
@client_options
@pass_settings
def command(settings: Settings, request: str, words: tuple[str, ...], output_format: str) -> None:
    """Show the jobs that a request would run, without storing or starting anything.

    ARG=VALUE sets an arg to text. ARG:=JSON sets it to a JSON value, for example a list, a number or true.

    --json prints the whole request. --format=json prints only its job chain.
    """
    args = parse_words(words)
    with settings.client() as client:
        planned = client.plan(request, args, strict_args=True)
    if settings.as_json:
        show_json(encode(planned))
    elif output_format == "json":
        show_json(encode(planned.job_chain))
    else:
        _show_drawing(_draw(planned.job_chain, output_format))


def _draw(chain: JobChain, output_format: str) -> str:
    if output_format == "svg":
        return draw_svg(render(chain, "dot"))
    return render(chain, "text" if output_format == "tree" else output_format)


def _show_drawing(text: str) -> None:
    """Prints a drawing. On a terminal, characters that are not printable are escaped."""
    if sys.stdout.isatty():
        text = "".join(f"{line}\n" for line in printable_lines(text))
    click.echo(text, nl=False)
