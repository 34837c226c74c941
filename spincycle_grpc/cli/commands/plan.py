"""`spinc plan`: shows the jobs that a request would run."""

from __future__ import annotations

import click

from spincycle_grpc.cli.arguments import parse_words
from spincycle_grpc.cli.drawing import format_option, show_chain
from spincycle_grpc.cli.output import show_json
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.wire import encode


@click.command("plan")
@click.argument("request")
@click.argument("words", metavar="[ARG=VALUE | ARG:=JSON]...", nargs=-1)
@format_option
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
    else:
        show_chain(planned.job_chain, output_format)
