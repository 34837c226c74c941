"""The command `spinc` itself: its commands, its options, and what it tells the shell when it ends."""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import Any

import click

from spincycle_grpc.cli.failures import BROKEN_PIPE, INTERRUPTED, OTHER, Failure, failure_of, usage_sentence
from spincycle_grpc.cli.output import one_line
from spincycle_grpc.cli.settings import Settings, client_options
from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.version import API_VERSION, package_version

_COMMANDS = {
    "start": "Make a request, and with --wait follow it.",
    "status": "Show a request.",
    "log": "Show what the jobs of a request did.",
    "ps": "List the jobs that run now.",
    "stop": "Stop a request.",
    "find": "List requests.",
    "help": "Explain a type of request.",
    "plan": "Show the jobs that a request would have.",
    "version": "Show the versions of spinc and of the server.",
}

_EPILOG = """\b
Exit status:
  0    done; with --wait: the request is COMPLETE
  1    with --wait: the request is FAIL or STOPPED
  2    wrong usage
  3    refused: no such request, wrong args, not allowed
  4    not now: the server cannot be reached, is too busy, or took too long
  5    anything else that went wrong
  130  ended by Ctrl-C
"""


class _Commands(click.Group):
    """The commands, each imported when it is used, so that none pays for the others."""

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
        """Runs a command, and turns what stops it into a Failure."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except SpinCycleError as error:
            raise failure_of(error) from error
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
            raise Failure(f"this should not have happened, please report it: {what}", OTHER) from error
        return result

    def main(self, *args: Any, **options: Any) -> Any:
        """Runs `spinc`, and ends the process with its exit status."""
        _take_any_text()
        try:
            status = super().main(*args, **{**options, "standalone_mode": False})
        except Failure as error:
            _complain(error.message)
            status = error.status
            if status == BROKEN_PIPE:
                _drop_output()
        except click.ClickException as error:
            _complain(usage_sentence(error))
            status = error.exit_code
        except click.Abort:
            status = INTERRUPTED
        sys.exit(status if isinstance(status, int) else 0)


def _take_any_text() -> None:
    """Lets text that the terminal's encoding does not have pass as escapes, rather than be an error."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _complain(sentence: str) -> None:
    if sentence:
        click.echo(f"spinc: {one_line(sentence)}", err=True)


def _drop_output() -> None:
    """Sends what is still to be written to nobody: Python would complain about the pipe at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


@click.command(cls=_Commands, invoke_without_command=True, epilog=_EPILOG)
@click.version_option(package_version(), message=f"spinc %(version)s (API {API_VERSION})")
@client_options
@click.pass_context
def cli(context: click.Context) -> None:
    """Make requests of Spin Cycle and follow them. Alone, it lists the types of requests there are.

    The options may also come after a command.
    """
    if context.invoked_subcommand is None:
        from spincycle_grpc.cli.commands.list_types import list_types

        list_types(context.ensure_object(Settings))


def main() -> None:
    """Runs `spinc` with the arguments of the process. Its help tells the exit status."""
    # What gRPC's core writes to standard error is for its own developers. Read when grpc is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    cli(prog_name="spinc")
