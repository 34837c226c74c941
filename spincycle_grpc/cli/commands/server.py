"""`spinc server`: shows the version, the health and the configuration of the server."""

from __future__ import annotations

import click

from spincycle_grpc.cli.output import one_line, show, show_json
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.cli.tables import Column, show_table
from spincycle_grpc.wire import encode


@click.command("server")
@click.option("--options", "shows_options", is_flag=True, help="Also show every option and its source.")
@client_options
@pass_settings
def command(settings: Settings, shows_options: bool) -> None:
    """Show the version, the database and the health of the Request Manager. It needs an admin role.

    Passwords in options are masked.
    """
    with settings.client() as client:
        server = client.get_configuration()
    if settings.as_json:
        show_json(encode(server))
        return
    version, api_version = one_line(server.version), one_line(server.api_version)
    show(f"version {version} (API {api_version}), database {one_line(server.database)}")
    show_table(
        (
            Column("PART", [check.name for check in server.health]),
            Column("HEALTH", ["ok" if check.healthy else "FAULT" for check in server.health]),
            Column("DETAIL", [check.message for check in server.health], least=20, wraps=True),
        )
    )
    if shows_options:
        show()
        show_table(
            (
                Column("OPTION", [option.name for option in server.options]),
                Column("VALUE", [option.value or "-" for option in server.options], least=12, wraps=True),
                Column("SOURCE", [option.source for option in server.options], least=8),
            )
        )
