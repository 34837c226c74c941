"""The comparison with other systems: its figures, its clients, and the versions that it installs."""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console

from bench.peer_programs.answers import answer_orders, run_clients
from bench.peer_programs.spincycle import Clients
from bench.peer_systems import Measured, programs
from bench.peers import SYSTEMS, Result, in_turn, result_of, spread, table_of
from spincycle_grpc.state import State
from tests.limits import STEP

ROOT = Path(__file__).resolve().parent.parent

ECHO = """
import asyncio
from bench.peer_programs.answers import answer_orders, own_output
answers = own_output()
print("a library prints something")
async def workflow(): await asyncio.sleep(0)
asyncio.run(answer_orders(answers, workflow))
"""


def test_each_system_is_first_in_turn() -> None:
    orders = [in_turn(SYSTEMS, number) for number in range(len(SYSTEMS))]
    assert [order[0] for order in orders] == list(SYSTEMS)
    assert all(sorted(order, key=SYSTEMS.index) == list(SYSTEMS) for order in orders)


def test_the_figures_are_those_of_one_workflow() -> None:
    measured = Measured([0.1, 0.2, 0.3, 0.4], wall=2.0, cpu={"database": 0.8})
    found = result_of("one", 16, 0, measured)
    assert (found.workflows, found.rate, found.p50) == (4, 2.0, 0.3)
    assert found.cpu == {"database": pytest.approx(0.2)}


def test_the_table_has_medians_ranges_and_ratios_of_the_same_round() -> None:
    names = list(dict.fromkeys(system.name for system in SYSTEMS))
    results = [
        Result(name, 16, number, 1, rate / place, 0.01, 0.02, {"database": 0.001})
        for place, name in enumerate(names, 1)
        for number, rate in enumerate((100.0, 300.0, 200.0))
    ]
    console = Console(width=300, file=io.StringIO(), record=True)
    console.print(table_of(results))
    rows = [line for line in console.export_text().splitlines() if line.startswith("| 16 ")]
    assert [row.split("|")[2].strip() for row in rows] == names
    assert "200.0 (100.0 to 300.0)" in rows[0]
    assert "1.000 (1.000 to 1.000)" in rows[0]
    assert "0.500 (0.500 to 0.500)" in rows[1]  # The rates differ between rounds, their ratios do not.
    assert spread([3.0, 1.0, 2.0], "{:.0f}".format) == "2 (1 to 3)"


async def test_clients_run_one_workflow_after_another_until_the_time_is_over() -> None:
    at_once, most = 0, 0

    async def workflow() -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.001)
        at_once -= 1

    took = await run_clients(workflow, clients=5, seconds=0.1)
    assert (most, at_once) == (5, 0)
    assert len(took) >= 5


async def test_a_program_that_fails_answers_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    async def workflow() -> None:
        raise ValueError("no such step")

    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"clients": 1, "seconds": 1}) + "\n"))
    answers = io.StringIO()
    with pytest.raises(ValueError, match="no such step"):
        await answer_orders(answers, workflow)
    assert answers.getvalue() == '{"ready": true}\n'


def test_clients_are_divided_among_processes_which_may_print() -> None:
    with programs([sys.executable, "-c", ECHO], {}, processes=2) as program:
        assert len(program.run(clients=1, seconds=0.05)) >= 1
        assert len(program.run(clients=5, seconds=0.05)) >= 5
        assert program.cpu_seconds() > 0


def test_a_program_that_ends_is_an_error_with_its_log() -> None:
    failing = "import sys; sys.exit('no database')"
    with (
        pytest.raises(RuntimeError, match="no database"),
        programs([sys.executable, "-c", failing], {}, processes=1, limit=STEP),
    ):
        pass


def test_the_other_systems_are_pinned_outside_the_environment_of_the_project() -> None:
    lock = (ROOT / "requirements-peers.lock").read_text()
    pinned = re.findall(
        r"^([\w.-]+)==\S+(?: ; [^\\]+)? \\\n    --hash=sha256:[0-9a-f]{64}", lock, re.MULTILINE
    )
    assert len(pinned) == len(re.findall(r"^[\w.-]+==", lock, re.MULTILINE))
    assert {"dbos", "prefect"} <= set(pinned)
    assert "://" not in lock
    for own in ("requirements.lock", "requirements-dev.lock"):
        assert not re.search(r"^(dbos|prefect)==", (ROOT / own).read_text(), re.MULTILINE)


class Recorded:
    """A connection to a server that records 10 ms for each request. Clients see the end after some looks."""

    def __init__(self, looks: int) -> None:
        self._looks, self._left = looks, 0

    async def send(self, data: bytes) -> tuple[int, bytes, bytes]:
        if data.startswith(b"POST"):
            self._left = self._looks
            return 201, b"", b'{"id": "r"}'
        self._left -= 1
        times = {"createdAt": "2026-01-01T00:00:00.000000Z", "finishedAt": "2026-01-01T00:00:00.010000Z"}
        answer = {"state": State.RUNNING} if self._left else {"state": State.COMPLETE, **times}
        return 200, b"", json.dumps(answer).encode()


async def test_what_a_client_sees_late_does_not_make_it_look_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(_: str) -> Recorded:
        return Recorded(looks=4)

    monkeypatch.setattr("bench.peer_programs.spincycle.connect", connect)
    clients = Clients("127.0.0.1:1", "three-jobs")
    for _ in range(60):
        await clients.run_request()  # It is seen after 14 ms or more.
    assert clients.usual == pytest.approx(0.010, rel=0.01)
    clients.forget()
    assert clients.usual == 0
