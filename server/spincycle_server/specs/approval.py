"""Approvals in specs: the only parser of their fields, and every rule that these must follow."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from spincycle_grpc.duration import parse_duration
from spincycle_server.specs.model import ApprovalSpec, NodeSpec, Specs
from spincycle_server.specs.secret_names import is_secret_name

APPROVAL = "approval"
"""The category of the nodes, and the type of their jobs."""

ON_TIMEOUT = ("fail", "continue")
"""What happens if nobody has decided in time."""

MAX_APPROVALS = 20
"""The most people that an approval can ask for."""

MAX_ROLES = 50
"""The most roles of an approval."""

MAX_ROLE = 100
"""The longest role of an approval, in characters."""

MAX_MESSAGE = 2000
"""The longest message of an approval, in characters, in a spec and with its args filled in."""

MAX_SHOWN_VALUE = 1000
"""The longest value of an arg in a message, in characters. A part of a longer one is left out."""

DEFAULT_TIMEOUT = "24h"
"""How long an approval waits if its spec does not say."""

MAX_TIMEOUT = "720h"
"""The longest time that an approval can wait: 30 days."""

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
"""An escaped brace, the name of an arg in braces, or a single brace, which is an error."""

_FIELDS_OF_OTHERS = (
    "type",
    "sets",
    "each",
    "parallel",
    "stopAfterFailures",
    "retry",
    "retryWait",
    "if",
    "eq",
)
_FIELDS_OF_APPROVALS = ("roles", "approvals", "notByRequester", "message", "onTimeout")


class ApprovalProblem(NamedTuple):
    """A problem of a node: its code, its message and the field that has it."""

    code: str
    message: str
    field: str


def filled_message(template: str, text_of: Callable[[str], str]) -> str:
    """Returns a message with its args filled in. It may have more than MAX_MESSAGE characters.

    Args:
        template: The message of a spec without problems.
        text_of: Returns the text of an arg.
    """

    def fill(part: re.Match[str]) -> str:
        return part[0][0] if part[1] is None else text_of(part[1])

    return _PART.sub(fill, template)


def args_of_message(template: str) -> list[str]:
    """Returns the names in braces of a message, in order."""
    return [part[1] for part in _PART.finditer(template) if part[1] is not None]


def approval_nodes(specs: Specs) -> list[NodeSpec]:
    """Returns the nodes of the specs that are approvals."""
    return [
        node
        for sequence in specs.sequences.values()
        for node in sequence.nodes.values()
        if node.category == APPROVAL
    ]


def approval_problems(node: NodeSpec) -> Iterator[ApprovalProblem]:
    """Yields the problems of a node that come from approvals, except of durations that cannot be read."""
    if node.category != APPROVAL:
        for name in _FIELDS_OF_APPROVALS:
            if name in node.positions:
                message = f"'{name}' is for approvals: remove it, or set 'category: approval'"
                yield ApprovalProblem("FIELD_OF_APPROVAL", message, name)
        return
    for name in _FIELDS_OF_OTHERS:
        if name in node.positions:
            message = (
                f"an approval has no '{name}': remove it, or put the approval into a sequence of its own"
            )
            yield ApprovalProblem("FIELD_ON_APPROVAL", message, name)
    approval = node.approval or ApprovalSpec()
    yield from _role_problems(approval)
    yield from _number_problems(approval)
    yield from _timeout_problems(node)
    yield from _message_problems(node, approval)


def _role_problems(approval: ApprovalSpec) -> Iterator[ApprovalProblem]:
    if not approval.roles:
        message = "an approval needs 'roles': name the roles that may decide"
        yield ApprovalProblem("MISSING_ROLES", message, "roles")
    if len(approval.roles) > MAX_ROLES:
        message = f"'roles' has {len(approval.roles)} roles, must have at most {MAX_ROLES}"
        yield ApprovalProblem("TOO_MANY_ROLES", message, "roles")
    if any(not role or len(role) > MAX_ROLE for role in approval.roles):
        message = f"each of 'roles' must have 1 to {MAX_ROLE} characters"
        yield ApprovalProblem("BAD_ROLE", message, "roles")


def _number_problems(approval: ApprovalSpec) -> Iterator[ApprovalProblem]:
    if approval.approvals is not None and not 1 <= approval.approvals <= MAX_APPROVALS:
        message = f"'approvals' is {approval.approvals}, must be a number from 1 to {MAX_APPROVALS}"
        yield ApprovalProblem("BAD_APPROVALS", message, "approvals")


def _timeout_problems(node: NodeSpec) -> Iterator[ApprovalProblem]:
    on_timeout = node.approval.on_timeout if node.approval is not None else ""
    if on_timeout and on_timeout not in ON_TIMEOUT:
        message = f"'onTimeout' is '{on_timeout}', must be one of {', '.join(ON_TIMEOUT)}"
        yield ApprovalProblem("BAD_ON_TIMEOUT", message + _suggestion(on_timeout, ON_TIMEOUT), "onTimeout")
    try:
        timeout = parse_duration(node.timeout or DEFAULT_TIMEOUT)
    except ValueError:  # The linter reports it as any other duration.
        return
    if not 0 < timeout <= parse_duration(MAX_TIMEOUT):
        message = f"'timeout' is {node.timeout}, must be positive and at most {MAX_TIMEOUT}"
        yield ApprovalProblem("BAD_APPROVAL_TIMEOUT", message, "timeout")


def _message_problems(node: NodeSpec, approval: ApprovalSpec) -> Iterator[ApprovalProblem]:
    if len(approval.message) > MAX_MESSAGE:
        message = f"'message' has {len(approval.message)} characters, must have at most {MAX_MESSAGE}"
        yield ApprovalProblem("MESSAGE_TOO_LONG", message, "message")
    if any(part[0] in ("{", "}") for part in _PART.finditer(approval.message)):
        message = "'message' has a single brace: write '{{' or '}}' for a brace, or '{arg}' for an arg"
        yield ApprovalProblem("BAD_MESSAGE", message, "message")
    given = {arg.expected: arg.given for arg in node.args}
    for name in dict.fromkeys(args_of_message(approval.message)):
        if name not in given:
            hint = _suggestion(name, given) or ": name it in 'args' of the node"
            yield ApprovalProblem(
                "UNKNOWN_MESSAGE_ARG", f"'message' has the unknown arg '{name}'{hint}", "message"
            )
        elif is_secret_name(name) or is_secret_name(given[name]):
            message = f"'message' would show arg '{name}', whose name says that it is secret: leave it out"
            yield ApprovalProblem("SECRET_IN_MESSAGE", message, "message")


def _suggestion(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, [*known], n=1)
    return f": did you mean '{near[0]}'?" if near else ""
