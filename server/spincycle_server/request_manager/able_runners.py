"""Which of the live runners have what a request needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from spincycle_server.capabilities import Capabilities, Requirement

MAX_REQUIREMENTS = 10_000
"""The maximum number of requirements whose runners are kept in memory."""


class AbleRunners:
    """The capabilities of the live runners. Which runners meet a requirement is kept until runners change."""

    def __init__(self) -> None:
        self._capabilities: dict[str, Capabilities] = {}
        self._able: dict[str, tuple[str, ...]] = {}

    def replace(self, capabilities: Mapping[str, Capabilities]) -> bool:
        """Replaces all runners, by id. Returns whether they or their capabilities differ from before."""
        is_different = self._capabilities != capabilities
        if is_different:
            self._capabilities = dict(capabilities)
            self._able.clear()
        return is_different

    def add(self, runner_id: str, capabilities: Capabilities) -> None:
        """Adds a runner, or changes its capabilities."""
        if self._capabilities.get(runner_id) != capabilities:
            self._capabilities[runner_id] = capabilities
            self._able.clear()

    def remove(self, runner_id: str) -> None:
        """Removes a runner, if it is there."""
        if self._capabilities.pop(runner_id, None) is not None:
            self._able.clear()

    def capabilities(self, runner_ids: Iterable[str]) -> list[Capabilities]:
        """Returns the capabilities of some of the runners."""
        return [self._capabilities[one] for one in runner_ids]

    def has_feature(self, runner_id: str, feature: str) -> bool:
        """Whether a runner knows a feature. A runner that is not there does not."""
        found = self._capabilities.get(runner_id)
        return found is not None and feature in found.features

    def of(self, requirement: Requirement) -> tuple[str, ...]:
        """Returns the ids of the runners that meet a requirement."""
        found = self._able.get(requirement.requirement_id)
        if found is None:
            if len(self._able) >= MAX_REQUIREMENTS:
                self._able.clear()
            found = tuple(one for one, has in self._capabilities.items() if has.meet(requirement))
            self._able[requirement.requirement_id] = found
        return found
