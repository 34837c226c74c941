"""`spinc version`: shows the versions of spinc and of the server."""

from __future__ import annotations

import json

import click

from spincycle_grpc.cli.output import show_json
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.cli.tables import show_fields
from spincycle_grpc.version import API_VERSION, package_version


@click.command("version")
@client_options
@pass_settings
def command(settings: Settings) -> None:
    """Show the versions of spinc and of the server."""
    with settings.client() as client:
        server = client.version()
    if settings.as_json:
        show_json(json.dumps({"spinc": package_version(), "api": API_VERSION, "server": server}).encode())
        return
    show_fields([("spinc", f"{package_version()} (API {API_VERSION})"), ("server", f"API {server}")])
