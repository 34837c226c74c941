"""Which runners have what a request needs, against a search through all of them."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from spincycle_server.capabilities import KNOWS_ALL, Capabilities, Requirement
from spincycle_server.request_manager import able_runners as able_runners_module
from spincycle_server.request_manager.able_runners import AbleRunners

IDS = st.sampled_from(["r1", "r2", "r3"])
CAPABILITIES = st.sampled_from([KNOWS_ALL, *(Capabilities(frozenset(types)) for types in ("", "a", "ab"))])
NEEDS = [Requirement(frozenset(types)) for types in ("", "a", "b", "x")]


class Changes(RuleBasedStateMachine):
    """Changes of the runners. The model has no memory of earlier answers."""

    def __init__(self) -> None:
        super().__init__()
        self.runners = AbleRunners()
        self.model: dict[str, Capabilities] = {}

    @rule(runner_id=IDS, has=CAPABILITIES)
    def add(self, runner_id: str, has: Capabilities) -> None:
        self.runners.add(runner_id, has)
        self.model[runner_id] = has

    @rule(runner_id=IDS)
    def remove(self, runner_id: str) -> None:
        self.runners.remove(runner_id)
        self.model.pop(runner_id, None)

    @rule(all_runners=st.dictionaries(IDS, CAPABILITIES))
    def replace(self, all_runners: dict[str, Capabilities]) -> None:
        assert self.runners.replace(all_runners) is (all_runners != self.model)
        self.model = dict(all_runners)

    @invariant()
    def finds_the_same(self) -> None:
        for requirement in NEEDS:
            able = [one for one, has in self.model.items() if has.meet(requirement)]
            assert sorted(self.runners.of(requirement)) == sorted(able)


TestChanges = Changes.TestCase
TestChanges.settings = settings(max_examples=50, stateful_step_count=15, deadline=None)


def test_the_number_of_answers_in_memory_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(able_runners_module, "MAX_REQUIREMENTS", 2)
    runners = AbleRunners()
    runners.add("r1", KNOWS_ALL)
    for requirement in NEEDS * 2:
        assert runners.of(requirement) == ("r1",)
        assert len(runners._able) <= 2
