"""A heartbeat is due some time after the last message."""

from __future__ import annotations

import pytest

from spincycle_server.watch.heartbeat import HEARTBEAT, Heartbeat


def test_a_heartbeat_is_due_after_a_while_without_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("spincycle_server.watch.heartbeat.time.monotonic", lambda: now)
    beat = Heartbeat()
    now += HEARTBEAT - 1
    assert beat.rest == 1
    beat.sent()
    assert beat.rest == HEARTBEAT
    now += HEARTBEAT + 1
    assert beat.rest == 0
