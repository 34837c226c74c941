"""`spinc help`: shows the args of a type of request."""

from __future__ import annotations

import click

from spincycle_grpc.cli.output import printable, show, show_json
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.cli.specs import default_text, find_spec, is_required, usage
from spincycle_grpc.cli.tables import Column, show_table
from spincycle_grpc.errors import NotFoundError
from spincycle_grpc.wire import encode


@click.command("help")
@click.argument("request", required=False)
@client_options
@pass_settings
@click.pass_context
def command(context: click.Context, settings: Settings, request: str | None) -> None:
    """Show the args of a type of request, with their kinds, defaults and meanings.

    Without REQUEST, show the help of spinc.
    """
    if request is None:
        show((context.parent or context).get_help())
        return
    with settings.client() as client:
        spec = find_spec(client, request)
    if spec is None:
        raise NotFoundError(
            f"there is no type of request named {request}: run spinc without arguments to list the types",
            reason="TYPE_NOT_FOUND",
        )
    if settings.as_json:
        show_json(encode(spec))
        return
    show(f"spinc start {printable(spec.name)} {printable(usage(spec))}".rstrip())
    if spec.args:
        show()
        show_table(
            (
                Column("ARG", [arg.name for arg in spec.args]),
                Column("KIND", ["required" if is_required(arg) else "optional" for arg in spec.args]),
                Column("DEFAULT", [default_text(arg) for arg in spec.args], least=8),
                Column("MEANING", [arg.desc for arg in spec.args], least=20, wraps=True),
            )
        )
