"""`spinc server`: shows the version, the health and the configuration of the server."""

from __future__ import annotations

import click

from spincycle_grpc.cli.output import one_line, show, show_json, show_table
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
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
    show(
        f"version {one_line(server.version)} (API {one_line(server.api_version)}), database {server.database}"
    )
    rows = [(check.name, "ok" if check.healthy else "FAULT", check.message) for check in server.health]
    show_table(("PART", "HEALTH", "DETAIL"), rows)
    if shows_options:
        show()
        options = [(option.name, option.value or "-", option.source) for option in server.options]
        show_table(("OPTION", "VALUE", "SOURCE"), options)
