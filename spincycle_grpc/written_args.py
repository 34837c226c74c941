"""Parses the args of a request on a command line."""

from __future__ import annotations

import json
from collections.abc import Iterable

from spincycle_grpc.errors import InvalidArgumentError


def parse_written_args(words: Iterable[str]) -> dict[str, object]:
    """Parses words of the form `name=text` or `name:=JSON`.

    The value after `=` is always text. The value after `:=` is JSON, for example a list, a number or true.

    Raises:
        InvalidArgumentError: A word has another form, its JSON is invalid, or an arg is given twice.
            Reason: BAD_WRITTEN_ARG.
    """
    args: dict[str, object] = {}
    for word in words:
        name, equals, text = word.partition("=")
        is_json = name.endswith(":")
        name = name.removesuffix(":")
        if not equals or not name:
            raise _bad(f"{word!r} must be ARG=VALUE or ARG:=JSON")
        if not _is_unicode(text):
            raise _bad(f"arg {name!r} has a value that is not Unicode text")
        if name in args:
            raise _bad(f"arg {name!r} is given twice")
        args[name] = _parse_json(name, text) if is_json else text
    return args


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # The command line has bytes that are invalid in the terminal's encoding.
        return False
    return True


def _parse_json(name: str, text: str) -> object:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _bad(f"arg {name!r} must be JSON after ':=', for example {name}:='[\"a\", \"b\"]'") from error


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _bad(message: str) -> InvalidArgumentError:
    return InvalidArgumentError(message, reason="BAD_WRITTEN_ARG")
