"""The original's decisions about who may start and stop requests, as one table, and those of view and log.

An admin role may do everything. With an access list, a role needs `admin` or the operation. Without one,
everybody may, unless the lists are strict.
"""

from __future__ import annotations

from itertools import product

import pytest

from spincycle_grpc.auth import Caller
from spincycle_server.identity.access import AccessLists
from spincycle_server.specs.parser import parse_specs

SPECS = b"""
sequences:
  unlisted:
    request: true
    nodes: {n: {category: job, type: noop}}
  empty-list:
    request: true
    acl: []
    nodes: {n: {category: job, type: noop}}
  listed:
    request: true
    acl:
      - {role: owner, admin: true}
      - {role: starter, ops: [start]}
      - {role: stopper, ops: [stop]}
      - {role: both, ops: [start, stop]}
      - {role: reader, ops: [view, log]}
    nodes: {n: {category: job, type: noop}}
  of-another-team:
    request: true
    acl:
      - {role: other-team, admin: true}
    nodes: {n: {category: job, type: noop}}
"""

NONE, START, STOP, BOTH, READ, ALL = (
    frozenset(operations.split()) for operations in
    ("", "start", "stop", "start stop", "view log", "start stop view log pause")
)  # fmt: skip

TABLE = {
    #                  unlisted          listed          of-another-team
    #              loose    strict   loose    strict     loose   strict
    "":           (ALL,     NONE,    NONE,    NONE,      NONE,   NONE),
    "stranger":   (ALL,     NONE,    NONE,    NONE,      NONE,   NONE),
    "starter":    (ALL,     NONE,    START,   START,     NONE,   NONE),
    "stopper":    (ALL,     NONE,    STOP,    STOP,      NONE,   NONE),
    "both":       (ALL,     NONE,    BOTH,    BOTH,      NONE,   NONE),
    "reader":     (ALL,     NONE,    READ,    READ,      NONE,   NONE),
    "owner":      (ALL,     NONE,    ALL,     ALL,       NONE,   NONE),
    "other-team": (ALL,     NONE,    NONE,    NONE,      ALL,    ALL),
    "Owner":      (ALL,     NONE,    NONE,    NONE,      NONE,   NONE),
    "root":       (ALL,     ALL,     ALL,     ALL,       ALL,    ALL),
    "sre":        (ALL,     ALL,     ALL,     ALL,       ALL,    ALL),
    "starter stopper":   (ALL, NONE, BOTH,    BOTH,      NONE,   NONE),
    "starter other-team": (ALL, NONE, START,  START,     ALL,    ALL),
    "stranger root":     (ALL, ALL,  ALL,     ALL,       ALL,    ALL),
}  # fmt: skip
"""What callers may do, by their roles. `root` and `sre` are admin roles."""


@pytest.mark.parametrize("roles", TABLE)
@pytest.mark.parametrize("operation", ["start", "stop", "view", "log", "pause"])
def test_the_decision_is_that_of_the_table(roles: str, operation: str) -> None:
    parsed = parse_specs({"specs.yaml": SPECS})
    assert not parsed.problems
    caller = Caller("finch", frozenset(roles.split()))
    cases = zip(product(("unlisted", "listed", "of-another-team"), (False, True)), TABLE[roles], strict=True)
    for (request_type, strict), allowed in cases:
        lists = AccessLists(parsed.specs, admin_roles=["root", "sre"], strict=strict)
        assert lists.allow(caller, operation, request_type) == (operation in allowed), (request_type, strict)
        if request_type == "unlisted":
            for equal in ("empty-list", "not-in-the-specs"):
                assert lists.allow(caller, operation, equal) == (operation in allowed), (equal, strict)


def test_without_admin_roles_strict_lists_close_unlisted_types_to_everybody() -> None:
    specs = parse_specs({"specs.yaml": SPECS}).specs
    lists = AccessLists(specs, strict=True)
    everybody = Caller("finch", frozenset({"root", "owner", "starter"}))
    assert not lists.allow(everybody, "start", "unlisted")
    assert lists.allow(everybody, "start", "listed")
