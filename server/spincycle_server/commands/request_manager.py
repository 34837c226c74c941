"""`spincycle request-manager` runs a Request Manager."""

from __future__ import annotations

import click

from spincycle_server.app.running import run, serve_request_manager
from spincycle_server.commands.options import overrides, server_options
from spincycle_server.config import load_with_sources
from spincycle_server.grpc_settings import load_grpc


@click.command("request-manager")
@server_options("http", "grpc", "workers", "specs", "db", "jobs")
def request_manager_command(config: str | None, **options: str | None) -> None:
    """Run a Request Manager.

    CONFIG is a YAML file of options. The default is config/$ENVIRONMENT.yaml, if that file exists.
    """
    loaded = load_with_sources(config, overrides=overrides(options))
    if loaded.config.server_workers > 1:
        from spincycle_server.app.workers import run_workers

        run_workers(loaded)
    else:
        load_grpc()
        run(serve_request_manager, loaded)
