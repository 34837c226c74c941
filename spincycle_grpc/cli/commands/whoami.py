"""`spinc whoami`: shows who the server says you are."""

from __future__ import annotations

import click

from spincycle_grpc.cli.output import one_line, show, show_json
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.cli.tables import Column, show_table
from spincycle_grpc.wire import encode


@click.command("whoami")
@client_options
@pass_settings
def command(settings: Settings) -> None:
    """Show your name, your roles, and what you may do with each type of request."""
    with settings.client() as client:
        caller = client.get_caller()
    if settings.as_json:
        show_json(encode(caller))
        return
    if caller.auth_method:
        show(f"{one_line(caller.user)}, by {one_line(caller.auth_method)}")
    else:
        show("The server does not authenticate users.")
    show(
        f"roles: {one_line(', '.join(caller.roles)) or 'none'}{' (administrator)' if caller.is_admin else ''}"
    )
    operations = [", ".join(one.operations) or "-" for one in caller.permissions]
    show_table(
        (
            Column("TYPE", [one.type for one in caller.permissions], least=12),
            Column("YOU MAY", operations, least=12, wraps=True),
        )
    )
