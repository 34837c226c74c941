"""`spinc notifications`, `redeliver` and `notify`: what was sent, and sending it again."""

from __future__ import annotations

import json

from spincycle_grpc.errors import FailedPreconditionError, NotFoundError
from spincycle_grpc.v1.notification_pb2 import DELIVERY_STATE_GIVEN_UP
from tests.cli.conftest import Spinc
from tests.fake_manager import FakeManager

FIRST, SECOND = f"{1:020x}", f"{2:020x}"


def test_notifications_shows_the_outcome_of_each_delivery(manager: FakeManager, spinc: Spinc) -> None:
    result = spinc("notifications", "--target", "ops", "--state", "given-up", "--limit", "5")
    heading, waiting, delivered, targets = [line.split() for line in result.stdout.splitlines()]
    assert heading[:4] == ["EVENT", "ID", "TARGET", "EVENT"]
    assert waiting[:3] == [SECOND, "ops", "failed"]
    assert waiting[-4:] == ["waiting", "3", "status", "500"]
    assert delivered == [FIRST, "ops", "test", "delivered", "1"]
    assert targets == ["targets:", "ops"]
    first, second = manager.requests("ListDeliveries")
    assert (first.filter.target, first.filter.state, first.filter.limit) == (
        "ops",
        DELIVERY_STATE_GIVEN_UP,
        5,
    )
    assert (second.filter.page_token, second.filter.limit) == ("1", 4)
    shown = json.loads(spinc("notifications", "--json").stdout)
    assert [one["eventId"] for one in shown["deliveries"]] == [SECOND, FIRST]
    assert shown["deliveries"][0]["state"] == "waiting"
    assert shown["targets"] == ["ops"]


def test_redeliver_sends_an_event_again(manager: FakeManager, spinc: Spinc) -> None:
    assert spinc("redeliver", FIRST, "ops").stdout == f"sending event {FIRST} to ops again\n"
    [asked] = manager.requests("Redeliver")
    assert (asked.event_id, asked.target) == (FIRST, "ops")
    manager.failures["Redeliver"] = [FailedPreconditionError("it has not ended", reason="DELIVERY_WAITING")]
    refused = spinc("redeliver", FIRST, "ops")
    assert (refused.exit_code, "has not ended" in refused.stderr) == (3, True)


def test_notify_says_whether_the_receiver_accepted_the_test(manager: FakeManager, spinc: Spinc) -> None:
    assert spinc("notify", "ops").stdout == "ops accepted the test\n"
    assert manager.requests("ListDeliveries")[0].filter.event_id == FIRST
    refused = spinc("notify", "down")
    assert (refused.exit_code, refused.stdout) == (5, "")
    assert "down did not accept the test: status 500" in refused.stderr
    manager.failures["SendTestNotification"] = [NotFoundError("no such target", reason="TARGET_NOT_FOUND")]
    assert spinc("notify", "nobody").exit_code == 3
