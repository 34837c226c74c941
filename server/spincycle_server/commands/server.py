"""`spincycle server` runs both servers in one process."""

from __future__ import annotations

import click

from spincycle_server.app.running import run, serve_both
from spincycle_server.commands.options import overrides, server_options
from spincycle_server.config import load_with_sources


@click.command("server")
@server_options("http", "grpc", "runner_http", "runner_grpc", "specs", "db", "jobs")
def server_command(config: str | None, **options: str | None) -> None:
    """Run a Request Manager and a Job Runner in one process.

    CONFIG is a YAML file of options. The default is config/$ENVIRONMENT.yaml, if that file exists.
    """
    run(serve_both, load_with_sources(config, overrides=overrides(options)))
