"""Runs `spincycle` with one part of the places of full runners changed.

Usage: python -m tests.e2e.patched_server PARTS ARGUMENTS...

The parts, with commas between them:

- no-probes: a Request Manager does not probe full runners.
- endless-promises: a Job Runner does not offer a place again that nobody has used.
- no-streams: a Job Runner answers WatchCapacity as one of an earlier version.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator

from spincycle_grpc.errors import ERROR_CLASSES, Status
from spincycle_grpc.v1.job_runner_pb2 import WatchCapacityRequest, WatchCapacityResponse
from spincycle_server.__main__ import main
from spincycle_server.job_runner import places
from spincycle_server.job_runner.service import JobRunnerService
from spincycle_server.request_manager import dispatcher, full_runners, pending_requests
from spincycle_server.rpc import CallContext

NEVER = 86_400.0


async def _unknown(
    _: JobRunnerService, request: WatchCapacityRequest, context: CallContext
) -> AsyncGenerator[WatchCapacityResponse, None]:
    raise ERROR_CLASSES[Status.UNIMPLEMENTED]("there is no such method")
    yield WatchCapacityResponse()


def patch(part: str) -> None:
    """Changes a part."""
    match part:
        case "no-probes":
            full_runners.PROBE = pending_requests.PROBE = dispatcher.PROBE = NEVER  # type: ignore[attr-defined]
        case "endless-promises":
            places.PROMISED = NEVER
        case "no-streams":
            JobRunnerService.WatchCapacity = _unknown  # type: ignore[method-assign, assignment]
        case _:
            raise ValueError(f"there is no part {part}")


if __name__ == "__main__":
    for name in sys.argv.pop(1).split(","):
        patch(name)
    main()
