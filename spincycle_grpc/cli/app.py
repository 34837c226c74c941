"""The command `spinc`: its subcommands, its options and its exit status."""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import Any

import click

from spincycle_grpc.cli.failures import BROKEN_PIPE, INTERRUPTED, OTHER, Failure, failure_of, usage_message
from spincycle_grpc.cli.interrupts import raising_on_interrupt
from spincycle_grpc.cli.output import one_line
from spincycle_grpc.cli.settings import Settings, client_options
from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.version import API_VERSION, package_version

_COMMANDS = {
    "start": "Create and start a request. With --wait, follow it.",
    "watch": "Show changes of a request, or of all requests, as they happen.",
    "status": "Show a request, its failed jobs, and what to do next.",
    "log": "Show what the jobs of a request did, with their output.",
    "export": "Write a report of a request for a ticket.",
    "history": "Show who did what with a request.",
    "ps": "List the running jobs.",
    "stop": "Stop a request, or all that match filters.",
    "pause": "Pause a request: no further job starts until resume.",
    "resume": "End the pause of a request.",
    "approve": "Approve what a request waits for.",
    "reject": "Reject what a request waits for.",
    "retry": "Do the rest of a request that is FAIL or STOPPED.",
    "rerun": "Create a request again, with the same args.",
    "find": "List requests that match filters.",
    "count": "Count requests that match filters, by state.",
    "runners": "List the Job Runners that are alive.",
    "locks": "List the keys of limits, with who holds them and who waits.",
    "server": "Show the version, health and configuration of the server.",
    "notifications": "List what was sent to the targets of notifications.",
    "redeliver": "Send a notification again.",
    "notify": "Send a test to a target of notifications.",
    "whoami": "Show who the server says you are, and what you may do.",
    "help": "Show the args of a type of request.",
    "graph": "Draw the jobs of a request.",
    "plan": "Show the jobs that a request would run (dry run).",
    "version": "Show the versions of spinc and of the server.",
}

_EPILOG = """\b
Exit status:
  0    success; with --wait, or after watch ID: the request is COMPLETE
  1    with --wait, or after watch ID: the request is FAIL or STOPPED
  2    invalid usage
  3    refused: unknown request, invalid args, or not allowed
  4    try later: the server is unreachable or overloaded, or took too long
  5    any other failure
  130  interrupted by Ctrl-C
"""


class _Commands(click.Group):
    """The subcommands. Each is imported only when it is used, so that `spinc` starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = importlib.import_module(f"spincycle_grpc.cli.commands.{cmd_name}").command
        assert isinstance(command, click.Command)  # noqa: S101 (a command module exports a command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command, and converts the error that ends it to a Failure."""
        settings = ctx.ensure_object(Settings)
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except SpinCycleError as error:
            raise failure_of(error, sends_token=settings.sends_token) from error
        except KeyboardInterrupt as error:
            raise Failure("interrupted", INTERRUPTED) from error
        except BrokenPipeError as error:
            raise Failure("", BROKEN_PIPE) from error
        except OSError as error:
            raise Failure(f"cannot write the output: {error.strerror}", OTHER) from error
        except (click.exceptions.Exit, click.Abort, click.ClickException):
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise Failure(f"unexpected error, please report it: {what}", OTHER) from error
        return result

    def main(self, *args: Any, **options: Any) -> Any:
        """Runs `spinc`, and exits the process with its exit status."""
        _tolerate_any_text()
        try:
            status = super().main(*args, **{**options, "standalone_mode": False})
        except Failure as error:
            _print_error(error.message)
            status = error.status
            if status == BROKEN_PIPE:
                _drop_output()
        except click.ClickException as error:
            _print_error(usage_message(error))
            status = error.exit_code
        except click.Abort:
            status = INTERRUPTED
        sys.exit(status if isinstance(status, int) else 0)


def _tolerate_any_text() -> None:
    """Escapes characters that the encoding of the terminal does not have, instead of failing."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _print_error(message: str) -> None:
    if message:
        click.echo(f"spinc: {one_line(message)}", err=True)


def _drop_output() -> None:
    """Discards buffered output. Otherwise Python reports the broken pipe when it exits."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


@click.command(cls=_Commands, invoke_without_command=True, epilog=_EPILOG)
@click.version_option(package_version(), message=f"spinc %(version)s (API {API_VERSION})")
@client_options
@click.pass_context
def cli(context: click.Context) -> None:
    """Create requests in Spin Cycle and follow them.

    Without a command, spinc lists the types of requests. The options can also follow a command.
    """
    if context.invoked_subcommand is None:
        from spincycle_grpc.cli.commands.list_types import list_types

        list_types(context.ensure_object(Settings))


def main() -> None:
    """Runs `spinc` with the arguments of the process. `spinc --help` explains the exit status."""
    # Log messages of gRPC's core do not help users. grpc reads the variable when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    with raising_on_interrupt():
        cli(prog_name="spinc")
