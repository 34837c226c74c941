"""The command-line options that commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = {
    "http": click.option(
        "--http",
        metavar="HOST:PORT",
        help="Address of the HTTP endpoint, or unix:PATH for a Request Manager. "
        "Default: 127.0.0.1:32308, or 127.0.0.1:32307 for a Job Runner.",
    ),
    "grpc": click.option(
        "--grpc", metavar="HOST:PORT", help="Address of the gRPC endpoint. Default: the HTTP port plus 10."
    ),
    "runner_http": click.option(
        "--runner-http",
        metavar="HOST:PORT",
        help="Address of the HTTP endpoint of the Job Runner. Default: 127.0.0.1:32307.",
    ),
    "runner_grpc": click.option(
        "--runner-grpc",
        metavar="HOST:PORT",
        help="Address of the gRPC endpoint of the Job Runner. Default: its HTTP port plus 10.",
    ),
    "workers": click.option(
        "--workers",
        metavar="NUMBER",
        help="Number of processes that serve the same addresses. Not with SQLite. Default: 1.",
    ),
    "specs": click.option(
        "--specs", metavar="DIRECTORY", help="Directory of request specs. Default: specs/."
    ),
    "db": click.option("--db", metavar="URL", help="Database URL. Default: sqlite:///spincycle.db."),
    "jobs": click.option(
        "--jobs",
        metavar="MODULE:ATTRIBUTE",
        help="Job factory to ask before the installed ones and the built-in one.",
    ),
    "rm": click.option(
        "--rm",
        metavar="HOST:PORT,...",
        help="gRPC addresses of the Request Managers, separated by commas. Default: 127.0.0.1:32318.",
    ),
}

KEYS = {
    "http": "server.addr",
    "grpc": "server.grpc",
    "runner_http": "job_runner.addr",
    "runner_grpc": "job_runner.grpc",
    "workers": "server.workers",
    "specs": "specs.dir",
    "db": "database.url",
    "jobs": "jobs.factory",
    "rm": "rm_client.grpc",
}
"""The configuration option that each command-line option sets."""


def server_options(*names: str) -> Callable[[_Command], _Command]:
    """Returns a decorator that adds the named options and the argument CONFIG to a command."""

    def decorate(command: _Command) -> _Command:
        for name in reversed(names):
            command = _OPTIONS[name](command)
        return click.argument("config", required=False, type=click.Path(dir_okay=False))(command)

    return decorate


def overrides(options: dict[str, str | None]) -> dict[str, str | None]:
    """Returns the values of command-line options by the configuration option that each sets."""
    return {KEYS[name]: value for name, value in options.items()}
