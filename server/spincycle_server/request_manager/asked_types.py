"""The job types that Job Runners are asked about: those of the specs, and those of requests that wait."""

from __future__ import annotations

from collections.abc import Collection

import orjson
import structlog

from spincycle_grpc.v1.runner_reports_pb2 import AskedJobTypes
from spincycle_server.capabilities import content_id

logger = structlog.get_logger(__name__)

MAX_TYPES = 20_000
"""The maximum number of job types that a runner is asked about, or answers with."""


class AskedTypes:
    """The list of job types, and its version.

    The types of waiting requests are asked too: their specs may have changed since, or another Request
    Manager with newer specs may have created them.
    """

    def __init__(self) -> None:
        self._of_specs: frozenset[str] = frozenset()
        self._of_requests: frozenset[str] = frozenset()
        self._message = _message(frozenset())

    @property
    def message(self) -> AskedJobTypes:
        """The list to send. It must not be changed."""
        return self._message

    def use_specs(self, types: Collection[str]) -> None:
        """Asks about the types of other specs from now on."""
        self._change(frozenset(types), self._of_requests)

    def add(self, types: frozenset[str]) -> None:
        """Asks about the types of a waiting request too."""
        if not types <= self._of_specs and not types <= self._of_requests:
            self._change(self._of_specs, self._of_requests | types)

    def _change(self, of_specs: frozenset[str], of_requests: frozenset[str]) -> None:
        if len(of_specs | of_requests) > MAX_TYPES:
            logger.error(
                "job runners are not asked about more job types: their requests wait",
                types=len(of_specs | of_requests),
                limit=MAX_TYPES,
            )
            return
        self._of_specs, self._of_requests = of_specs, of_requests
        self._message = _message(of_specs | of_requests)


def _message(types: frozenset[str]) -> AskedJobTypes:
    ordered = sorted(types)
    return AskedJobTypes(version=content_id(orjson.dumps(ordered)), types=ordered)
