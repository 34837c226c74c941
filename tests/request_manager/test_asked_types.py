"""The job types that runners are asked about, and their version."""

from __future__ import annotations

import pytest

from spincycle_server.request_manager import asked_types as asked_types_module
from spincycle_server.request_manager.asked_types import AskedTypes


def test_equal_lists_have_equal_versions_and_others_do_not() -> None:
    first, second, other = AskedTypes(), AskedTypes(), AskedTypes()
    first.use_specs(["a", "b"])
    second.use_specs(["b"])
    second.add(frozenset({"a"}))
    other.use_specs(["a"])
    assert first.message == second.message
    assert list(first.message.types) == ["a", "b"]
    assert len({asked.message.version for asked in (first, other, AskedTypes())}) == 3


def test_types_of_waiting_requests_stay_when_the_specs_change() -> None:
    asked = AskedTypes()
    asked.use_specs(["a"])
    asked.add(frozenset({"b"}))
    asked.use_specs(["c"])
    assert list(asked.message.types) == ["b", "c"]


def test_known_types_do_not_change_the_list() -> None:
    asked = AskedTypes()
    asked.use_specs(["a", "b"])
    before = asked.message
    asked.add(frozenset({"a"}))
    assert asked.message is before


def test_a_list_beyond_the_limit_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked_types_module, "MAX_TYPES", 2)
    asked = AskedTypes()
    asked.use_specs(["a", "b"])
    asked.add(frozenset({"c"}))
    assert list(asked.message.types) == ["a", "b"]
