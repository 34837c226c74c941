"""Access lists: who may do what with requests of which type."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spincycle_grpc.auth import Caller
from spincycle_grpc.errors import PermissionDeniedError
from spincycle_server.identity.access import (
    ALL_TYPES,
    LOG,
    RETRY,
    START,
    STOP,
    VIEW,
    AccessLists,
    VisibleTypes,
)
from spincycle_server.specs.model import AclSpec
from tests.graph.models import NOWHERE, node, sequence, specs

OPEN = sequence("open", node("job"), request=True)
LISTED = replace(
    sequence("listed", node("job"), request=True),
    acl=(
        AclSpec("owner", admin=True, ops=(), position=NOWHERE),
        AclSpec("starter", admin=False, ops=("start",), position=NOWHERE),
        AclSpec("operator", admin=False, ops=("start", "stop"), position=NOWHERE),
        AclSpec("viewer", admin=False, ops=("view",), position=NOWHERE),
    ),
)

CLOSED = replace(
    sequence("closed", node("job"), request=True),
    acl=(AclSpec("owner", admin=True, ops=(), position=NOWHERE),),
)
SPECS = specs(OPEN, LISTED, CLOSED)


def may(lists: AccessLists, operation: str, request_type: str, *roles: str) -> bool:
    try:
        lists.check(Caller("finch", frozenset(roles)), operation, request_type)
    except PermissionDeniedError:
        return False
    return True


@pytest.mark.parametrize("operation", [START, STOP])
@pytest.mark.parametrize("roles", [(), ("anything",)])
def test_a_request_without_a_list_is_open_to_every_caller(operation: str, roles: tuple[str, ...]) -> None:
    assert may(AccessLists(SPECS), operation, "open", *roles)


@pytest.mark.parametrize(
    ("role", "may_start", "may_stop"),
    [
        ("owner", True, True),
        ("starter", True, False),
        ("operator", True, True),
        ("stranger", False, False),
        ("Owner", False, False),
    ],
)
def test_a_list_grants_the_operations_of_the_callers_role(role: str, may_start: bool, may_stop: bool) -> None:
    lists = AccessLists(SPECS)
    assert may(lists, START, "listed", role) is may_start
    assert may(lists, STOP, "listed", role) is may_stop


@pytest.mark.parametrize(
    ("role", "may_retry"),
    [("owner", True), ("starter", True), ("operator", True), ("retrier", True), ("stranger", False)],
)
def test_who_may_start_requests_may_retry_them_and_not_the_reverse(role: str, may_retry: bool) -> None:
    listed = replace(LISTED, acl=(*LISTED.acl, AclSpec("retrier", False, ("retry",), NOWHERE)))
    lists = AccessLists(specs(listed))
    assert may(lists, RETRY, "listed", role) is may_retry
    assert not may(lists, START, "listed", "retrier")
    assert not may(lists, STOP, "listed", "retrier")


def test_one_of_several_roles_is_enough() -> None:
    assert may(AccessLists(SPECS), STOP, "listed", "stranger", "starter", "operator")


def test_a_caller_without_roles_may_not_use_a_listed_request() -> None:
    assert not may(AccessLists(SPECS), START, "listed")


@pytest.mark.parametrize("strict", [False, True])
def test_an_admin_role_may_do_everything(strict: bool) -> None:
    lists = AccessLists(SPECS, admin_roles=["root", "sre"], strict=strict)
    for request_type in ("open", "listed", "unknown"):
        assert may(lists, START, request_type, "sre")
        assert may(lists, STOP, request_type, "sre")


def test_strict_lists_close_requests_without_a_list() -> None:
    lists = AccessLists(SPECS, admin_roles=["root"], strict=True)
    assert not may(lists, START, "open", "owner")
    assert may(lists, START, "listed", "starter")


def test_a_sequence_that_is_not_a_request_has_no_list() -> None:
    lists = AccessLists(specs(replace(LISTED, request=False)))
    assert may(lists, START, "listed")


@pytest.mark.parametrize(("name", "shown"), [("finch", "finch"), ("", "(unknown)")])
def test_a_denial_names_the_caller_the_operation_the_roles_and_the_request(name: str, shown: str) -> None:
    lists = AccessLists(SPECS, admin_roles=["root"])
    with pytest.raises(PermissionDeniedError) as caught:
        lists.check(Caller(name), STOP, "listed", "request-id")
    assert caught.value.message == (
        f"caller {shown} may not stop requests of type listed: needs one of the roles: operator, owner, root"
    )
    assert (caught.value.reason, caught.value.request_id) == ("ACCESS_DENIED", "request-id")


def test_a_denial_that_no_role_could_avoid_names_the_option() -> None:
    with pytest.raises(PermissionDeniedError, match=r"one of the roles: \(none: set auth.admin_roles\)$"):
        AccessLists(SPECS, strict=True).check(Caller("finch"), LOG, "open")


@pytest.mark.parametrize(
    ("strict", "roles", "visible"),
    [
        (False, [], VisibleTypes(hidden=frozenset({"listed", "closed"}))),
        (False, ["viewer"], VisibleTypes(hidden=frozenset({"closed"}))),
        (False, ["starter"], VisibleTypes(hidden=frozenset({"listed", "closed"}))),
        (False, ["owner"], VisibleTypes()),
        (False, ["root"], ALL_TYPES),
        (True, [], VisibleTypes(only=frozenset())),
        (True, ["viewer"], VisibleTypes(only=frozenset({"listed"}))),
        (True, ["owner"], VisibleTypes(only=frozenset({"listed", "closed"}))),
        (True, ["root"], ALL_TYPES),
    ],
)
def test_the_visible_types_are_those_that_a_caller_may_view(
    strict: bool, roles: list[str], visible: VisibleTypes
) -> None:
    lists = AccessLists(SPECS, admin_roles=["root"], strict=strict)
    caller = Caller("finch", frozenset(roles))
    found = lists.visible_types(caller)
    assert found == visible
    for request_type in ("open", "listed", "closed", "removed"):
        assert found.has(request_type) == lists.allow(caller, VIEW, request_type)
