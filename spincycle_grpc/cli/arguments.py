"""The args of a request on the command line, and asking for those that are not there."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import click

from spincycle_grpc.cli.output import printable
from spincycle_grpc.cli.specs import default_text, is_required
from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.v1.request_pb2 import RequestArg, RequestSpec
from spincycle_grpc.written_args import parse_written_args


def parse_words(words: Iterable[str]) -> dict[str, object]:
    """Returns the args that words of the command line stand for.

    Raises:
        click.UsageError: They stand for none.
    """
    try:
        return parse_written_args(words)
    except InvalidArgumentError as error:
        raise click.UsageError(str(error)) from error


def can_ask() -> bool:
    """Whether somebody is there to answer. Standard output may be a file: questions do not go there."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask_for_missing(spec: RequestSpec, args: dict[str, object]) -> None:
    """Asks for the args that are not there, required ones first, and adds the answers.

    Nothing is asked when args are given and no required one is missing: then they are meant to be
    all, and the optional ones have their defaults.

    Args:
        spec: The type of request.
        args: The args that are given.

    Raises:
        click.Abort: The terminal was closed, or Ctrl-D pressed.
    """
    missing = [arg for arg in spec.args if arg.name not in args]
    if args and not any(is_required(arg) for arg in missing):
        return
    if missing:
        click.echo("An answer is text; :=JSON is a list, a number, true. Ctrl-C starts nothing.", err=True)
    for arg in sorted(missing, key=is_required, reverse=True):
        _ask(arg, args)


def _ask(arg: RequestArg, args: dict[str, object]) -> None:
    """Asks for one arg until there is an answer that it can have. One that stays out has its default."""
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
    line = sys.stdin.readline()
    if not line:
        click.echo(err=True)
        raise click.Abort
    return line.strip()
