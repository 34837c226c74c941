"""Checks that a server with approvals in its specs knows who decides."""

from __future__ import annotations

from spincycle_grpc.errors import FailedPreconditionError
from spincycle_server.specs.approval import approval_nodes
from spincycle_server.specs.model import Specs


def check_approvers(specs: Specs, *, is_authenticated: bool) -> None:
    """Checks that the specs have no approvals, or that users are authenticated.

    Raises:
        FailedPreconditionError: Otherwise. Reason: NEEDS_AUTHENTICATION.
    """
    nodes = [] if is_authenticated else approval_nodes(specs)
    if nodes:
        more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
        raise FailedPreconditionError(
            f"{nodes[0].position}: node {nodes[0].name} is an approval{more}, but the server does not "
            "authenticate users, so it cannot know who decides: configure auth, or remove the approvals",
            reason="NEEDS_AUTHENTICATION",
        )
