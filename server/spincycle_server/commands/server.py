"""`spincycle server` runs both servers in one process."""

from __future__ import annotations

import click

from spincycle_server.app.running import run, serve_both
from spincycle_server.commands.options import overrides, server_options
from spincycle_server.config import ConfigError, load_with_sources


@click.command("server")
@server_options("http", "grpc", "runner_http", "runner_grpc", "specs", "db", "jobs")
def server_command(config: str | None, **options: str | None) -> None:
    """Run a Request Manager and a Job Runner in one process.

    CONFIG is a YAML file of options. The default is config/$ENVIRONMENT.yaml, if that file exists.
    """
    loaded = load_with_sources(config, overrides=overrides(options))
    if loaded.config.server_workers > 1:
        raise ConfigError(
            "option server.workers: `spincycle server` is one process: run `spincycle request-manager` with "
            "workers and `spincycle job-runner`, or set server.workers to 1",
            reason="BAD_CONFIG",
        )
    run(serve_both, loaded)
