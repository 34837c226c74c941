"""Where the claims of a token are found."""

from __future__ import annotations

from typing import Any

import pytest

from spincycle_grpc.auth import Caller
from spincycle_server.identity.oidc_claims import caller_of, claim_at

CLAIMS: dict[str, Any] = {
    "sub": "alice",
    "realm_access": {"roles": ["dba"]},
    "resource_access": {"spin-cycle": {"roles": ["ops"]}},
    "https://example.com/roles": ["owner"],
    "text": "x",
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("sub", "alice"),
        ("realm_access.roles", ["dba"]),
        ("resource_access.spin-cycle.roles", ["ops"]),
        ("https://example.com/roles", ["owner"]),
        ("none", None),
        ("realm_access.none", None),
        ("text.roles", None),
        ("realm_access.roles.0", None),
        ("", None),
        (".", None),
    ],
)
def test_a_path_names_a_claim(path: str, value: object) -> None:
    assert claim_at(CLAIMS, path) == value


def test_the_caller_has_the_name_and_the_roles_of_the_claims() -> None:
    caller = caller_of(CLAIMS, "sub", "realm_access.roles")
    assert caller == Caller("alice", frozenset({"dba"}))
    assert caller_of(CLAIMS, "sub", "none") == Caller("alice")
