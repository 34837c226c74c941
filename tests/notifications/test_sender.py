"""What a sender stores about attempts that fail in unusual ways, in a real database."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from spincycle_grpc.errors import UnavailableError
from spincycle_grpc.state import State
from spincycle_grpc.v1.notification_pb2 import (
    DELIVERY_STATE_GIVEN_UP,
    DELIVERY_STATE_WAITING,
    Delivery,
    DeliveryFilter,
)
from spincycle_server.notifications import sender
from spincycle_server.notifications.attempt import Outcome
from spincycle_server.notifications.notifier import Notifier
from spincycle_server.notifications.targets import Target, Targets
from spincycle_server.store import Store
from tests.databases import OPTIONS, SharedServers
from tests.limits import STEP
from tests.store.samples import create

TARGET = Target(name="ops", url="https://h", host="h", format="json", events=frozenset({"failed"}))


@pytest.fixture
async def store(database_servers: SharedServers, tmp_path: Path) -> AsyncIterator[Store]:
    with database_servers.migrated("sqlite", tmp_path) as url:
        store = await Store.open(url, OPTIONS)
        yield store
        await store.close()


@contextlib.asynccontextmanager
async def sending(store: Store) -> AsyncIterator[Notifier]:
    notifier = Notifier(Targets([TARGET], ["h"]), store, "")
    task = asyncio.create_task(notifier.run())
    yield notifier
    task.cancel()
    await asyncio.wait([task])


async def fail_a_request(store: Store) -> None:
    """Fails a request just now. The notifier gives up deliveries that are days old, whenever it cleans up."""
    made = await create(store)
    await store.finish(made.id, State.FAIL, time.time_ns() // 1000, 1)


async def after_an_attempt(store: Store) -> Delivery:
    """Returns the only delivery when the outcome of an attempt is stored."""
    async with asyncio.timeout(STEP):
        while True:
            (found,) = (await store.deliveries.list(DeliveryFilter())).deliveries
            if found.last_error:
                return found
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("function", ["contents_of", "body_of", "attempt"])
async def test_an_unexpected_error_is_an_outcome_like_others(
    store: Store, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("s3cr3t")

    monkeypatch.setattr(sender, function, broken)
    with capture_logs() as logs:
        async with sending(store) as notifier:
            await fail_a_request(store)
            found = await after_an_attempt(store)
    assert (found.state, found.attempts) == (DELIVERY_STATE_WAITING, 1)
    assert found.last_error == "internal error: ZeroDivisionError"
    assert found.next_attempt_at.ToMicroseconds() > found.occurred_at.ToMicroseconds()
    assert notifier.attempts.of("ops", "failed").value == 1
    (logged,) = (log for log in logs if log["event"] == "a notification raised an exception")
    assert isinstance(logged["exc_info"], ZeroDivisionError)


async def test_a_database_that_is_away_says_nothing_about_a_delivery(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    was_asked = asyncio.Event()

    async def away(*_: Any) -> Any:
        was_asked.set()
        raise UnavailableError("away")

    monkeypatch.setattr(sender, "contents_of", away)
    async with sending(store) as notifier:
        await fail_a_request(store)
        async with asyncio.timeout(STEP):
            await was_asked.wait()
    (found,) = (await store.deliveries.list(DeliveryFilter())).deliveries
    assert (found.state, found.last_error) == (DELIVERY_STATE_WAITING, "")
    assert notifier.attempts.of("ops", "failed").value == 0


async def test_a_test_has_one_attempt_and_raises_no_alert(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: Any) -> Outcome:
        return Outcome("status 500")

    monkeypatch.setattr(sender, "attempt", refused)
    async with sending(store) as notifier:
        await store.deliveries.add_test("ops")
        notifier.wake("ops")
        found = await after_an_attempt(store)
    assert (found.state, found.attempts, found.last_error) == (DELIVERY_STATE_GIVEN_UP, 1, "status 500")
    assert notifier.attempts.of("ops", "given_up").value == 0
    assert notifier.attempts.of("ops", "failed").value == 1
