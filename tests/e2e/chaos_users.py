"""The users of the chaos test."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable
from random import Random
from typing import Any

import httpx

from spincycle_grpc.state import State
from tests.e2e.chaos_system import LEASE, System
from tests.e2e.kinds import CHAOS_KINDS, POISON, Kind
from tests.limits import REQUEST_END

POISON_PAUSE = 60.0
"""Seconds between two requests that end their runners."""

FEWEST = 10 * len(CHAOS_KINDS)
"""Requests that are created however long it takes."""


class Users:
    """Users who create requests, stop some of them, and repeat their calls until they get an answer.

    Args:
        system: The system.

    Attributes:
        kinds: The kinds of the requests, by id.
        on_created: Called with the id of each request.
    """

    def __init__(self, system: System) -> None:
        self._urls = itertools.cycle(f"https://127.0.0.1:{port}" for port in system.ports)
        self._http = httpx.Client(
            timeout=5.0,
            verify=system.security.context,
            headers={"authorization": f"Bearer {system.token}"},
        )
        self.kinds: dict[str, Kind] = {}
        self.on_created: Callable[[str], None] = lambda request_id: None
        self._to_stop: dict[str, float] = {}

    def close(self) -> None:
        self._http.close()

    def wait_until_known(self) -> None:
        """Waits until the servers know the token: they look for new tokens at intervals."""
        deadline = time.monotonic() + REQUEST_END
        known = 0
        while known < 10:  # in a row, so that each server has answered
            assert time.monotonic() < deadline, "the servers do not know the token"
            answer = self._http.get(next(self._urls) + "/api/v1/requests?limit=1")
            known = known + 1 if answer.status_code == 200 else 0
            time.sleep(0.02)

    def create(self, kind: Kind, patience: float) -> None:
        """Calls Create once. If the call gets no answer, the request may still exist.

        If the user stops requests of this kind, the stop follows after `patience` seconds.
        """
        with contextlib.suppress(httpx.TransportError):
            answer = self._http.post(
                next(self._urls) + "/api/v1/requests", json={"type": kind.type, "args": kind.args}
            )
            if answer.status_code == 201:
                self.kinds[answer.json()["id"]] = kind
                self.on_created(answer.json()["id"])
                if kind.is_stopped:
                    self._to_stop[answer.json()["id"]] = time.monotonic() + patience
                return
            assert answer.status_code in (429, 503, 504), answer.text

    def stop_one(self) -> None:
        """Calls Stop once for the next request whose time to be stopped has come, if there is one."""
        if not self._to_stop:
            return
        request_id = min(self._to_stop, key=self._to_stop.__getitem__)
        if self._to_stop[request_id] > time.monotonic():
            return
        with contextlib.suppress(httpx.TransportError):
            answer = self._http.put(f"{next(self._urls)}/api/v1/requests/{request_id}/stop")
            if answer.status_code == 200:
                del self._to_stop[request_id]
            else:
                assert answer.status_code in (429, 503, 504), answer.text

    def stop_all(self) -> None:
        """Repeats stops until each request that has to be stopped is stopped."""
        deadline = time.monotonic() + REQUEST_END
        while self._to_stop:
            assert time.monotonic() < deadline, f"these requests could not be stopped: {self._to_stop}"
            self.stop_one()
            time.sleep(0.02)

    def make(self, count: int, seconds: float, random: Random, is_over: threading.Event) -> None:
        """Creates about `count` requests in about `seconds`, and then a few more until `is_over` is set.

        A slow machine creates fewer, but not fewer than FEWEST.
        """
        turn = itertools.cycle(CHAOS_KINDS)
        next_poison = time.monotonic() + random.uniform(0, seconds / 2)
        while len(self.kinds) < FEWEST or not is_over.is_set():
            if len(self.kinds) < count or random.random() < 0.1:
                for _ in range(random.randint(1, 5)):
                    self.create(next(turn), random.uniform(0, 3 * LEASE))
            self.stop_one()
            if time.monotonic() > next_poison:
                self.create(POISON, 0)
                next_poison += POISON_PAUSE
            # On average, three requests at a time. This uses four fifths of the time.
            time.sleep(random.uniform(0, 2 * 3 * 0.8 * seconds / count))
        self.stop_all()

    def get(self, path: str) -> Any:
        """Repeats a GET until it succeeds, and returns the JSON body."""
        deadline = time.monotonic() + REQUEST_END
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = self._http.get(next(self._urls) + path)
                if answer.status_code == 200:
                    return answer.json()
                assert answer.status_code in (429, 503, 504), answer.text
            assert time.monotonic() < deadline, f"no server answers {path}"
            time.sleep(0.05)

    def state(self, request_id: str) -> State:
        return State(self.get(f"/api/v1/requests/{request_id}")["state"])
