"""Command-line options that several commands share, and what every command does with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = {
    "http": click.option("--http", metavar="HOST:PORT", help="Where to serve HTTP."),
    "grpc": click.option(
        "--grpc", metavar="HOST:PORT", help="Where to serve gRPC. Default: HTTP's port plus 10."
    ),
    "specs": click.option("--specs", metavar="DIRECTORY", help="The request specs. Default: specs/."),
    "db": click.option("--db", metavar="URL", help="The database. Default: sqlite:///spincycle.db."),
    "jobs": click.option("--jobs", metavar="MODULE:ATTRIBUTE", help="The job factory."),
    "rm": click.option("--rm", metavar="HOST:PORT", help="The gRPC address of the Request Manager."),
}

KEYS = {
    "http": "server.addr",
    "grpc": "server.grpc",
    "specs": "specs.dir",
    "db": "database.url",
    "jobs": "jobs.factory",
    "rm": "rm_client.grpc",
}
"""Option of the command line to option of the configuration."""


def server_options(*names: str) -> Callable[[_Command], _Command]:
    """Gives a command the named options and the argument for the configuration file."""

    def decorate(command: _Command) -> _Command:
        for name in reversed(names):
            command = _OPTIONS[name](command)
        return click.argument("config", required=False, type=click.Path(dir_okay=False))(command)

    return decorate


def overrides(options: dict[str, str | None]) -> dict[str, str | None]:
    """Returns what the command line gave, by the names of the configuration."""
    return {KEYS[name]: value for name, value in options.items()}
