"""`spinc start`: makes a request, and with --wait follows it."""

from __future__ import annotations

import sys

import click

from spincycle_grpc.cli.arguments import ask_for_missing, can_ask, parse_words
from spincycle_grpc.cli.failures import INTERRUPTED, Failure
from spincycle_grpc.cli.following import follow, show_end
from spincycle_grpc.cli.output import printable, show, show_json
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.cli.specs import find_spec
from spincycle_grpc.client import Client
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.v1.state_pb2 import STATE_COMPLETE
from spincycle_grpc.wire import encode


@click.command("start")
@click.argument("request")
@click.argument("words", metavar="[ARG=VALUE | ARG:=JSON]...", nargs=-1)
@click.option("--wait", is_flag=True, help="Follow the request until it has ended. Ctrl-C leaves it running.")
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="Start it once, however often this is run with the same KEY and args within a day.",
)
@client_options
@pass_settings
def command(
    settings: Settings, request: str, words: tuple[str, ...], wait: bool, idempotency_key: str | None
) -> None:
    """Make a request and start it. Prints its id.

    ARG=VALUE is an arg whose value is text; ARG:=JSON is one whose value is a list, a number, true.
    At a terminal spinc asks for args that are missing.
    """
    args = parse_words(words)
    with settings.client() as client:
        if can_ask() and not settings.as_json:
            _ask(client, request, args)
        try:
            made = client.create(request, args, idempotency_key=idempotency_key)
        except KeyboardInterrupt as error:
            raise Failure(
                "interrupted; the request may have been made: spinc find shows it", INTERRUPTED
            ) from error
        if wait:
            _wait(client, made, settings)
        elif settings.as_json:
            show_json(encode(made))
        elif sys.stdout.isatty():
            show(f"request {printable(made.id)} is made; follow it with: spinc status {printable(made.id)}")
        else:
            show(printable(made.id))


def _ask(client: Client, request: str, args: dict[str, object]) -> None:
    """Asks for missing args, if there is such a request; if not, the server says so better."""
    try:
        spec = find_spec(client, request)
        if spec is not None:
            ask_for_missing(spec, args)
    except (KeyboardInterrupt, click.Abort) as error:
        raise Failure("interrupted; nothing was started", INTERRUPTED) from error


def _wait(client: Client, made: Request, settings: Settings) -> None:
    """Follows a request to its end.

    Raises:
        click.exceptions.Exit: It is not COMPLETE.
        Failure: Ctrl-C.
    """
    try:
        ended = follow(client, made, quiet=settings.as_json)
        if settings.as_json:
            show_json(encode(ended))
        else:
            show_end(client, ended)
    except KeyboardInterrupt as error:
        raise Failure(
            f"interrupted; request {made.id} goes on (to stop it: spinc stop {made.id})", INTERRUPTED
        ) from error
    if ended.state != STATE_COMPLETE:
        raise click.exceptions.Exit(1)
