"""The args of a request as people write them on a command line."""

from __future__ import annotations

import json
from collections.abc import Iterable

from spincycle_grpc.errors import InvalidArgumentError


def parse_written_args(words: Iterable[str]) -> dict[str, object]:
    """Returns the args that words stand for.

    `name=text` is an arg whose value is text, whatever it looks like; `name:=JSON` is one whose
    value is the JSON: a list, a number, true.

    Raises:
        InvalidArgumentError: A word has another form, or what should be JSON is none, or an arg is
            there twice. Reason: BAD_WRITTEN_ARG.
    """
    args: dict[str, object] = {}
    for word in words:
        name, equals, text = word.partition("=")
        is_json = name.endswith(":")
        name = name.removesuffix(":")
        if not equals or not name:
            raise _bad(f"{word!r} must be arg=value, or arg:=JSON")
        if not _is_unicode(text):
            raise _bad(f"arg {name!r} has a value that is not Unicode text")
        if name in args:
            raise _bad(f"arg {name!r} is given twice")
        args[name] = _parse_json(name, text) if is_json else text
    return args


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # Bytes of a command line that are not the terminal's encoding.
        return False
    return True


def _parse_json(name: str, text: str) -> object:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _bad(f"arg {name!r} must be JSON after ':=', as {name}:='[\"a\", \"b\"]'") from error


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _bad(message: str) -> InvalidArgumentError:
    return InvalidArgumentError(message, reason="BAD_WRITTEN_ARG")
