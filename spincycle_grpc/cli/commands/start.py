"""`spinc start`: creates and starts a request, and can follow it."""

from __future__ import annotations

import click

from spincycle_grpc.cli.arguments import ask_for_missing, can_ask, parse_words
from spincycle_grpc.cli.created import show_created
from spincycle_grpc.cli.failures import INTERRUPTED, Failure
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.cli.specs import find_spec
from spincycle_grpc.client import Client


@click.command("start")
@click.argument("request")
@click.argument("words", metavar="[ARG=VALUE | ARG:=JSON]...", nargs=-1)
@click.option(
    "--wait", is_flag=True, help="Follow the request until it ends. Ctrl-C does not stop the request."
)
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="Create only one request, even if you repeat the command with this KEY within a day.",
)
@client_options
@pass_settings
def command(
    settings: Settings, request: str, words: tuple[str, ...], wait: bool, idempotency_key: str | None
) -> None:
    """Create and start a request, and print its id.

    ARG=VALUE sets an arg to text. ARG:=JSON sets it to a JSON value, for example a list, a number or true.
    On a terminal, spinc asks for args if required args are missing or no arg is given.
    """
    args = parse_words(words)
    with settings.client() as client:
        if can_ask() and not settings.as_json:
            _ask(client, request, args)
        try:
            created = client.create(request, args, idempotency_key=idempotency_key, strict_args=True)
        except KeyboardInterrupt as error:
            raise Failure(
                "interrupted: the request may exist, look for it with: spinc find", INTERRUPTED
            ) from error
        show_created(client, created, settings, wait=wait)


def _ask(client: Client, request: str, args: dict[str, object]) -> None:
    """Asks for missing args. If the type does not exist, the server will report it."""
    try:
        spec = find_spec(client, request)
        if spec is not None:
            ask_for_missing(spec, args)
    except (KeyboardInterrupt, click.Abort) as error:
        raise Failure("interrupted: nothing was started", INTERRUPTED) from error
