"""Reads the name and the roles of a caller from the claims of a token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spincycle_grpc.auth import Caller
from spincycle_grpc.errors import UnauthenticatedError
from spincycle_server.identity.identity import MAX_NAME


def caller_of(claims: Mapping[str, Any], name_claim: str, roles_claim: str) -> Caller:
    """Returns the caller that a token is about.

    Args:
        claims: The claims of the token.
        name_claim: The path of the name, for example "sub".
        roles_claim: The path of the roles, for example "realm_access.roles". Without this claim, the caller
            has no roles.

    Raises:
        UnauthenticatedError: The name is missing, or a claim has the wrong type. Reason: INVALID_TOKEN.
    """
    name = claim_at(claims, name_claim)
    if not isinstance(name, str) or not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise _invalid(f"the claim {name_claim} must be a text of 1 to {MAX_NAME} printable characters")
    roles = claim_at(claims, roles_claim)
    if roles is None:
        return Caller(name)
    if not isinstance(roles, list) or not all(isinstance(role, str) and role for role in roles):
        raise _invalid(f"the claim {roles_claim} must be a list of texts")
    return Caller(name, frozenset(roles))


def claim_at(claims: Mapping[str, Any], path: str) -> Any:
    """Returns the claim at a path; None if there is none.

    The names of the path are separated by dots. A claim whose own name has dots, such as
    "https://example.com/roles", is found too.
    """
    if path in claims:
        return claims[path]
    value: Any = claims
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value


def _invalid(what: str) -> UnauthenticatedError:
    return UnauthenticatedError(f"the token does not say who calls: {what}", reason="INVALID_TOKEN")
