"""Requests that are created while servers are killed."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from spincycle_grpc import Client
from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.state import FINAL_STATES, State
from tests.e2e.installations import Installation
from tests.e2e.waiting import eventually

LEASE = {"SPINCYCLE_JOB_RUNNER_LEASE": "4s"}
"""The lease of runners that must outlive a pause of the machine, and whose death is noticed soon."""

_Answer = TypeVar("_Answer")


def complete_amid_deaths(there: Installation, count: int, create: Callable[[Client, int], str]) -> list[str]:
    """Creates requests at two Request Managers with two Job Runners, each of which is killed now and then.

    Returns their ids once they are COMPLETE.

    Args:
        there: An installation with two Request Managers, none of which runs.
        count: How many requests to create.
        create: Creates a request, and returns its id. It gets its number, and repeats itself with it.
    """
    managers = [there.start_manager(number) for number in range(2)]
    runners = [there.start_runner() for _ in range(2)]
    made: list[str] = []
    for number in range(count):
        made.append(_answer(there, partial(_called, create, number)))
        at = number // 10 % 2
        if number % 10 == 4:
            managers[at].kill()
            managers[at] = there.start_manager(at)
        if number % 10 == 9:
            runners[at].kill()
            runners[at] = there.start_runner()
    for request_id in made:
        assert eventually(partial(_final_state, there, request_id)) is State.COMPLETE
    return made


def most_at_once(spans: Iterable[tuple[int, int]]) -> int:
    """Returns how many spans overlap at most."""
    ends = [change for first, last in spans for change in ((first, 1), (last + 1, -1))]
    return max(itertools.accumulate(change for _, change in sorted(ends)), default=0)


def _called(create: Callable[[Client, int], str], number: int, client: Client) -> str:
    return create(client, number)


def _answer(there: Installation, ask: Callable[[Client], _Answer]) -> _Answer:
    """Returns the answer of whichever Request Manager answers."""
    for client in itertools.cycle(map(there.client_of, range(len(there.ports)))):
        with contextlib.suppress(SpinCycleError):
            return ask(client)
    raise AssertionError


def _final_state(there: Installation, request_id: str) -> State | None:
    state = _answer(there, lambda client: State(client.get(request_id).state))
    return state if state in FINAL_STATES else None
