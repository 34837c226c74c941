"""The command line of the servers: `spincycle COMMAND`."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys

import click

from spincycle_grpc.errors import SpinCycleError, Status
from spincycle_grpc.version import API_VERSION, package_version
from spincycle_server.first_process import continue_in_child
from spincycle_server.garbage_collection import collect_again, collect_not_yet
from spincycle_server.grpc_settings import import_grpc, load_grpc
from spincycle_server.log_library import load_structlog
from spincycle_server.log_output import open_missing_descriptors

_SECTIONS = {
    "Servers": {
        "server": "Run a Request Manager and a Job Runner in one process.",
        "request-manager": "Run a Request Manager.",
        "job-runner": "Run a Job Runner.",
        "demo": "Serve the example specs and follow one request.",
    },
    "Configuration": {
        "config": "Print the options and their sources.",
    },
    "Database": {
        "migrate": "Create or upgrade the database schema.",
        "prune": "Delete requests that ended long ago, and old audit events.",
        "audit": "Print the audit log.",
    },
    "Access": {
        "token": "Create, list and revoke API tokens.",
    },
    "Request specs": {
        "lint": "Check request specs.",
        "graph": "Print the job chain of a request.",
    },
    "Contracts": {
        "protos": "Write the .proto files.",
    },
}

_GRPC_COMMANDS = frozenset(_SECTIONS["Servers"])
"""The commands that import gRPC. The others start faster without it."""

_FORKING_COMMANDS = frozenset({"request-manager"})
"""The commands that start gRPC's core themselves, because they may fork first."""

SERVER_PACKAGES = (
    "alembic", "cryptography", "grpc_health", "grpc_status", "httptools", "joserfc", "psycopg", "pymysql",
    "sqlalchemy", "starlette", "structlog", "uvicorn", "uvloop", "yaml",
)  # fmt: skip
"""The import names of the packages that the extra `server` installs."""


class _Commands(click.Group):
    """The commands of `spincycle`. Each is imported only when it is used, which keeps the start short."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for section in _SECTIONS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        if cmd_name in _GRPC_COMMANDS:
            continue_in_child()  # before gRPC starts threads
            # Before the command's module imports gRPC. Workers are forked, so no thread may run yet.
            import_grpc() if cmd_name in _FORKING_COMMANDS else load_grpc()
        load_structlog()
        word = cmd_name.replace("-", "_")
        command = getattr(importlib.import_module(f"spincycle_server.commands.{word}"), f"{word}_command")
        collect_again()
        assert isinstance(command, click.Command)  # noqa: S101 (a command module exports a command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.list_commands(ctx)))
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, text in commands.items()])


@click.command(cls=_Commands)
@click.version_option(package_version(), message=f"spincycle %(version)s (API {API_VERSION})")
def cli() -> None:
    """Run and maintain the servers of Spin Cycle."""


def main() -> None:
    """Runs a command. Exit status: 0 success, 1 failure, 2 wrong usage or configuration, 130 interrupted."""
    collect_not_yet()  # until the command is loaded
    open_missing_descriptors()
    if any(importlib.util.find_spec(name) is None for name in SERVER_PACKAGES):
        click.echo(
            "spincycle: the packages that the servers need are not installed: "
            "run `pip install 'spincycle-grpc[server]'`",
            err=True,
        )
        sys.exit(2)
    try:
        cli.main(prog_name="spincycle", standalone_mode=False)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.ClickException as error:
        with contextlib.suppress(OSError):  # Without standard error, the exit status still tells.
            error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except SpinCycleError as error:
        with contextlib.suppress(OSError):
            click.echo(f"spincycle: {error}", err=True)
        sys.exit(2 if error.status is Status.INVALID_ARGUMENT else 1)


if __name__ == "__main__":
    main()
