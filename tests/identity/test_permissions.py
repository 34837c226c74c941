"""Permissions: the access lists, then a second check, and what a caller may read."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from spincycle_grpc.auth import Caller
from spincycle_grpc.errors import PermissionDeniedError
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_server.identity import Identity
from spincycle_server.identity.access import ALL_TYPES, START, STOP, VIEW, AccessLists
from spincycle_server.identity.permissions import Permissions
from spincycle_server.specs.model import AclSpec
from tests.graph.models import NOWHERE, node, sequence, specs

SPECS = specs(
    sequence("open", node("job"), request=True),
    replace(
        sequence("listed", node("job"), request=True),
        acl=(
            AclSpec("starter", admin=False, ops=("start",), position=NOWHERE),
            AclSpec("viewer", admin=False, ops=("view",), position=NOWHERE),
        ),
    ),
)
STARTER = Caller("wren", frozenset({"starter"}))
VIEWER = Caller("heron", frozenset({"viewer"}))


@dataclass
class Recorder:
    """A second check that refuses requests of one id."""

    asked: list[tuple[str, str, str]] = field(default_factory=list)

    async def authorize(self, caller: Caller, operation: str, request: Request) -> None:
        self.asked.append((caller.name, operation, request.id))
        if request.id == "refused":
            raise PermissionDeniedError("not this one", reason="ACCESS_DENIED")


async def test_the_second_check_is_asked_after_the_lists_have_allowed_the_operation() -> None:
    recorder = Recorder()
    permissions = Permissions(AccessLists(SPECS), recorder)
    assert permissions.need_args
    await permissions.check(STARTER, START, Request(id="one", type="listed"))
    with pytest.raises(PermissionDeniedError, match="not this one"):
        await permissions.check(STARTER, START, Request(id="refused", type="listed"))
    with pytest.raises(PermissionDeniedError, match="may not stop"):
        await permissions.check(STARTER, STOP, Request(id="two", type="listed"))
    assert recorder.asked == [("wren", START, "one"), ("wren", START, "refused")]


async def test_without_a_second_check_the_lists_decide() -> None:
    permissions = Permissions(AccessLists(SPECS))
    assert not permissions.need_args
    await permissions.check(STARTER, START, Request(type="listed"))
    permissions.check_type(STARTER, START, "listed")
    with pytest.raises(PermissionDeniedError):
        permissions.check_type(VIEWER, START, "listed")


def test_every_caller_may_read_by_default() -> None:
    permissions = Permissions(AccessLists(SPECS))
    stranger = Identity(Caller("finch"))
    assert not permissions.restrict_reads_of(stranger)
    assert permissions.visible_types(stranger) == ALL_TYPES
    assert permissions.is_listed(stranger, "listed")


def test_reading_follows_the_lists_if_asked() -> None:
    permissions = Permissions(AccessLists(SPECS), reads_follow_lists=True)
    for caller, sees, is_listed in (
        (Caller("finch"), False, False),
        (STARTER, False, True),
        (VIEWER, True, True),
    ):
        identity = Identity(caller, "token")
        assert permissions.restrict_reads_of(identity)
        assert permissions.visible_types(identity).has("listed") is sees
        assert permissions.is_listed(identity, "listed") is is_listed
        assert permissions.visible_types(identity).has("open")
        assert permissions.is_listed(identity, "open")


def test_other_servers_may_read_everything() -> None:
    permissions = Permissions(AccessLists(SPECS, strict=True), reads_follow_lists=True)
    server = Identity(method="cluster")
    assert not permissions.restrict_reads_of(server)
    assert permissions.visible_types(server) == ALL_TYPES
    assert permissions.is_listed(server, "listed")


def test_view_is_an_operation_of_the_lists() -> None:
    AccessLists(SPECS).check(VIEWER, VIEW, "listed")
