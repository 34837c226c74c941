"""Runs real servers under a seeded schedule of kills, pauses, and restarts, and checks the result."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from random import Random
from typing import Any

from spincycle_grpc.state import State
from tests.e2e.chaos_checks import assert_done_once
from tests.e2e.chaos_system import LEASE, System
from tests.e2e.chaos_users import Users
from tests.e2e.chaos_watchers import Watchers
from tests.e2e.kinds import assert_ended_right
from tests.e2e.link_process import Direction
from tests.journal_jobs import read_journal
from tests.limits import REQUEST_END

ENDED = {State.COMPLETE, State.FAIL, State.STOPPED}


def disturb(system: System, random: Random) -> None:
    """Disturbs the system once, in a random way."""
    what = random.choice(
        [
            "kill runner", "kill runner", "pause runner", "pause runner", "end runner",
            "kill manager", "pause manager", "end manager", "renew certificates", "deploy", "cut", "cut",
            "kill database" if system.database is not None else "kill runner",
        ]
    )  # fmt: skip
    if what == "kill database":
        system.note(what)
        system.restart_database()
        system.note("database is back")
        return
    if what == "renew certificates":
        system.note(what)
        system.security.renew()
        return
    if what == "deploy":
        deployed = system.deploy()
        system.note(f"deploy: {deployed.name if deployed is not None else 'nothing left'}")
        return
    if what == "cut":
        link, direction = random.choice(system.links.links), random.choice(list(Direction))
        system.note(f"cut: {link.name}, {direction.value}")
        system.cut(link, direction, random.uniform(0.25 * LEASE, 2.5 * LEASE))
        system.note(f"healed: {link.name}")
        return
    member = random.choice(system.runners if "runner" in what else system.managers)
    seconds = random.uniform(0.25 * LEASE, 2.5 * LEASE)
    system.note(f"{what}: {member.name} ({member.pid})")
    if what.startswith("kill"):
        system.kill(member)
    elif what.startswith("pause"):
        system.pause(member, seconds)
        system.note(f"goes on: {member.name}")
    else:
        system.terminate(member)


def run_chaos(system: System, *, seed: int, requests: int, seconds: float) -> None:
    """Creates requests while the system is disturbed, then checks how each of them ended.

    Raises:
        AssertionError: A request did not end as its kind requires. The message has the seed and a history.
    """
    random = Random(seed)
    users = Users(system)
    is_over = threading.Event()
    failures: list[BaseException] = []

    def make() -> None:
        try:
            users.make(requests, seconds, Random(seed), is_over)
        except BaseException as error:
            failures.append(error)

    users.wait_until_known()
    watchers = Watchers(system, seed)
    users.on_created = watchers.follow
    making = threading.Thread(target=make)
    making.start()
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not failures:
            time.sleep(random.uniform(0, 1.0))
            system.revive()
            disturb(system, random)
        system.revive()
        while system.deploy() is not None:
            pass
        is_over.set()
        deadline = time.monotonic() + 2 * REQUEST_END
        while making.is_alive() and time.monotonic() < deadline:
            system.revive()  # A poison job may have ended the last runner.
            making.join(0.2)
        assert not failures, f"seed {seed}: {failures}\n{system.errors()}"
        _wait_until_all_ended(system, users, seed)
        _check(system, users, watchers, seed)
    finally:
        is_over.set()
        making.join(REQUEST_END)
        watchers.close()
        users.close()
        what = ", ".join(what for _, what in system.done)
        print(f"seed {seed}: {len(users.kinds)} requests; {what}")  # noqa: T201 (pytest shows it when the test fails)


def _wait_until_all_ended(system: System, users: Users, seed: int) -> None:
    deadline = time.monotonic() + REQUEST_END
    waiting = set(users.kinds)
    while waiting:
        system.revive()
        waiting = {request_id for request_id in waiting if users.state(request_id) not in ENDED}
        if time.monotonic() > deadline:
            first = min(waiting)
            raise AssertionError(
                f"seed {seed}: {len(waiting)} requests have not ended, for example {first}:\n"
                f"{users.get(f'/api/v1/requests/{first}/log')}\n{system.history(first)}"
            )
        time.sleep(0.2)


def _check(system: System, users: Users, watchers: Watchers, seed: int) -> None:
    unexplained = system.unexplained()
    assert not unexplained, f"seed {seed}: a server has a defect:\n{unexplained[-20_000:]}"
    journals: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in read_journal(system.journal):
        journals[line["request"]].append(line)
    troubles = system.all_troubles()
    logs = {request_id: users.get(f"/api/v1/requests/{request_id}/log") for request_id in users.kinds}
    watchers.wait({request_id: kind.type for request_id, kind in users.kinds.items()}, logs)
    for request_id, kind in users.kinds.items():
        request = users.get(f"/api/v1/requests/{request_id}")
        log = logs[request_id]
        try:
            assert_ended_right(kind, request, log)
            if not kind.is_poison:
                assert_done_once(kind, request, log, journals[request_id], troubles)
            watchers.check(request, log)
        except AssertionError as error:
            raise AssertionError(
                f"seed {seed}: {error}\nlog:\n"
                + "\n".join(map(str, log))
                + f"\nhistory:\n{system.history(request_id)}"
            ) from error
