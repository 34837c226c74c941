"""The keys of limits: computed from the args of a sequence when the sequence begins."""

from __future__ import annotations

from collections.abc import Iterator

from spincycle_grpc.v1.limit_pb2 import Limit
from spincycle_server.graph.plan import LimitPlan
from spincycle_server.graph.scope import Scope
from spincycle_server.graph.values import kind_name
from spincycle_server.specs.limits import bad_key

_SHOWN = 80


def limits_of(scope: Scope) -> Iterator[Limit]:
    """Yields the limits of a sequence that is being built. Limits with the same key are one.

    Raises:
        InvalidArgumentError: The value of an arg cannot be part of a key. Reason: BAD_LIMIT_KEY.
        InternalError: The sequence has no such arg. Reason: REQUIRED_ARG_MISSING.
    """
    keys: set[str] = set()
    for limit in scope.plan.limits:
        key = _key_of(scope, limit)
        if key not in keys:
            keys.add(key)
            yield Limit(key=key, max=limit.max, policy=limit.policy)


def _key_of(scope: Scope, limit: LimitPlan) -> str:
    texts: list[str] = []
    for text, arg in limit.parts:
        texts.append(text)
        if arg:
            texts.append(_value_text(scope, arg))
    key = "".join(texts)
    if problem := bad_key(key):
        raise scope.path.bad_arg(f"the key {key[:_SHOWN]!r} of a limit {problem}", "BAD_LIMIT_KEY")
    return key


def _value_text(scope: Scope, arg: str) -> str:
    """Returns the text of an arg in a key: a string as it is, a number or a bool as in JSON."""
    if arg not in scope.args:
        raise scope.path.broken_spec(f"arg '{arg}' of a limit not set", "REQUIRED_ARG_MISSING")
    value = scope.args[arg]
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float):
        return str(value)
    raise scope.path.bad_arg(
        f"arg '{arg}' is a {kind_name(value)}, which cannot be part of the key of a limit", "BAD_LIMIT_KEY"
    )
