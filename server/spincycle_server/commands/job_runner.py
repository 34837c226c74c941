"""`spincycle job-runner` runs a Job Runner."""

from __future__ import annotations

import click

from spincycle_server.app.running import run, serve_job_runner
from spincycle_server.commands.options import overrides, server_options
from spincycle_server.config import load_with_sources


@click.command("job-runner")
@server_options("http", "grpc", "jobs", "rm")
def job_runner_command(config: str | None, **options: str | None) -> None:
    """Run a Job Runner.

    CONFIG is a YAML file of options. The default is config/$ENVIRONMENT.yaml, if that file exists.
    """
    run(serve_job_runner, load_with_sources(config, overrides=overrides(options)))
