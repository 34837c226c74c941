"""The command line of the servers: `spincycle COMMAND`."""

from __future__ import annotations

import importlib
import sys

import click

from spincycle_server.grpc_settings import load_grpc

load_grpc()  # before what follows imports it

from spincycle_grpc.errors import SpinCycleError, Status  # noqa: E402
from spincycle_grpc.version import API_VERSION, package_version  # noqa: E402

_COMMANDS = {
    "server": "Run a Request Manager and a Job Runner in one process.",
    "request-manager": "Run a Request Manager.",
    "job-runner": "Run a Job Runner.",
    "migrate": "Bring the database up to date.",
    "prune": "Delete old requests that have ended.",
    "lint": "Check request specs.",
    "graph": "Print the job chain that a request would get.",
    "demo": "Serve the example specs, run a request and show it.",
}


class _Commands(click.Group):
    """The commands, each imported when it is used, so that none pays for the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        word = cmd_name.replace("-", "_")
        command = getattr(importlib.import_module(f"spincycle_server.commands.{word}"), f"{word}_command")
        assert isinstance(command, click.Command)  # noqa: S101 (a command module exports a command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(cls=_Commands)
@click.version_option(package_version(), message=f"spincycle %(version)s (API {API_VERSION})")
def cli() -> None:
    """Spin Cycle: runs requests as chains of jobs."""


def main() -> None:
    """Runs a command. Exit status: 0 done, 1 failed, 2 wrong usage or configuration."""
    try:
        cli.main(prog_name="spincycle", standalone_mode=False)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except SpinCycleError as error:
        click.echo(f"spincycle: {error}", err=True)
        sys.exit(2 if error.status is Status.INVALID_ARGUMENT else 1)


if __name__ == "__main__":
    main()
