"""Parses the args of a request on the command line, and prompts for missing args."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import click

from spincycle_grpc.cli.interrupts import wait_for_line
from spincycle_grpc.cli.output import printable
from spincycle_grpc.cli.specs import default_text, is_required
from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.v1.request_pb2 import RequestArg, RequestSpec
from spincycle_grpc.written_args import parse_written_args


def parse_words(words: Iterable[str]) -> dict[str, object]:
    """Parses args like `name=text` and `name:=JSON`.

    Raises:
        click.UsageError: A word has another form.
    """
    try:
        return parse_written_args(words)
    except InvalidArgumentError as error:
        raise click.UsageError(str(error)) from error


class NotEmptyType(click.ParamType[str]):
    """A text that is not empty, so that an unset variable of a script does not mean "all".

    Args:
        least: The minimum number of characters.
        what: What the text is, for the message about a shorter one: "id".
    """

    name = "text"

    def __init__(self, least: int = 1, what: str = "") -> None:
        self._least = least
        self._what = what

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the value. Ends the command with a message if it is too short."""
        if not value.strip():
            self.fail("it is empty, perhaps because a variable of your shell is not set", param, ctx)
        if len(value) < self._least:
            self.fail(f"write at least {self._least} characters of the {self._what}", param, ctx)
        return value


REQUEST_ID = NotEmptyType(4, "id")
"""The id of a request, or at least its first four characters."""

JOB = NotEmptyType()
"""The id of a job, its beginning, or a part of its path."""


def can_ask() -> bool:
    """Whether a user can answer prompts. They go to standard error, because standard output may be a file."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask_for_missing(spec: RequestSpec, args: dict[str, object]) -> None:
    """Prompts for missing args, required ones first, and adds the answers.

    If at least one arg and all required args are given, there is no prompt: the missing optional args get
    their defaults.

    Args:
        spec: The type of request.
        args: The given args. The answers are added.

    Raises:
        click.Abort: The user closed the terminal or pressed Ctrl-D.
    """
    missing = [arg for arg in spec.args if arg.name not in args]
    if args and not any(is_required(arg) for arg in missing):
        return
    if missing:
        click.echo(
            "Type text, or :=JSON for a list, a number or true. Ctrl-C quits without starting anything.",
            err=True,
        )
    for arg in sorted(missing, key=is_required, reverse=True):
        _ask(arg, args)


def _ask(arg: RequestArg, args: dict[str, object]) -> None:
    """Prompts for one arg until the answer is valid. An empty answer means: leave an optional arg out."""
    while True:
        answer = _answer(_question(arg))
        if not answer:
            if is_required(arg):
                continue
            return
        word = f"{arg.name}{answer}" if answer.startswith(":=") else f"{arg.name}={answer}"
        try:
            args.update(parse_written_args([word]))
        except InvalidArgumentError as error:
            click.echo(printable(str(error)), err=True)
            continue
        return


def _question(arg: RequestArg) -> str:
    question = printable(arg.name)
    if arg.desc:
        question += f" ({printable(arg.desc)})"
    if not is_required(arg):
        question += f" [{printable(default_text(arg))}]"
    return f"{question}: "


def _answer(question: str) -> str:
    click.echo(question, nl=False, err=True)
    wait_for_line(sys.stdin)
    line = sys.stdin.readline()
    if not line:
        click.echo(err=True)
        raise click.Abort
    return line.strip()
