"""Checks that callers give only args that the spec of a request names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_server.specs.model import SequenceSpec

_LONGEST_NAME = 80
_MOST_NAMES = 10


def check_known_args(sequence: SequenceSpec, given: Iterable[str]) -> None:
    """Checks that a request's spec names all args that the caller gives.

    Static args count as known here: that they cannot be given is another error.

    Raises:
        InvalidArgumentError: The spec does not name an arg. Reason: UNKNOWN_ARG.
    """
    known = {arg.name for arg in sequence.all_args}
    unknown = sorted(set(given) - known)
    if unknown:
        name = unknown[0][:_LONGEST_NAME]
        raise InvalidArgumentError(
            f"request {sequence.name} has no arg '{name}': {_hint(name, sequence)}",
            reason="UNKNOWN_ARG",
            field=f"args.{name}",
        )


def _hint(name: str, sequence: SequenceSpec) -> str:
    names = sorted(arg.name for arg in (*sequence.required, *sequence.optional))
    if not names:
        return "it takes no args"
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]}?"
    shown = names if len(names) <= _MOST_NAMES else [*names[:_MOST_NAMES], "..."]
    return f"its args are {', '.join(shown)}"
