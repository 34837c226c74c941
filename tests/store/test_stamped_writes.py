"""Every change of a request and every new try has the stamp of its transaction."""

from __future__ import annotations

import ast
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.dialects import sqlite

from spincycle_grpc.state import State
from spincycle_grpc.v1.runner_reports_pb2 import Assignment
from spincycle_server.store import Store, creation, job_logs
from spincycle_server.store.schema import job_log, requests
from tests.store.managers import read_rows
from tests.store.samples import OTHER_RUNNER, RUNNER, a_log_entry, a_report, a_suspended_chain, create

SERVER = Path(__file__).resolve().parents[2] / "server" / "spincycle_server"

WRITERS = {
    "maintenance/adoption.py",  # `migrate --fail-pending`
    "store/creation.py",
    "store/job_logs.py",
    "store/request_rows.py",
    "store/limit_rows.py",  # sets what a request needs
    "store/requirement_rows.py",  # the same
}
"""The modules that insert or update rows of requests and tries.

They stamp them, except those that set what a request needs, which watchers do not see.
"""


def writing_modules() -> Iterator[str]:
    for path in SERVER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
                "insert",
                "update",
                "insert_ignoring",
            ):
                tables = {getattr(argument, "id", "") for argument in node.args}
                if tables & {"requests", "job_log"}:
                    yield str(path.relative_to(SERVER))


def test_only_these_modules_write_rows_of_requests_and_tries() -> None:
    assert set(writing_modules()) == WRITERS


@pytest.mark.parametrize("statement", [creation._INSERT_REQUEST, job_logs.INSERT_TRY])
def test_the_statements_of_new_rows_set_the_stamp(statement: Any) -> None:
    assert "change_stamp" in statement.for_dialect(sqlite.dialect()).text


_Change = Callable[[Store, str], Awaitable[object]]


async def _assign(store: Store, request_id: str) -> Assignment:
    assignment = await store.assign(request_id, RUNNER, expected_state=State.PENDING)
    assert assignment is not None
    return assignment


async def _unassign(store: Store, request_id: str) -> None:
    assert await store.unassign(Assignment(request_id=request_id, epoch=1), State.PENDING)


async def _report(store: Store, request_id: str, **fields: Any) -> None:
    assert not await store.apply_reports(RUNNER.runner_id, [a_report(request_id, **fields)])


CHANGES: dict[str, tuple[bool, _Change]] = {
    "assign": (False, _assign),
    "stop unassigned": (False, lambda store, one: store.stop_unassigned(one)),
    "unassign": (True, _unassign),
    "request stop": (True, lambda store, one: store.request_stop(one)),
    "finish": (True, lambda store, one: store.finish(one, State.COMPLETE, 1_800_000_000_000_000, 3)),
    "suspend": (True, lambda store, one: store.suspend(one, a_suspended_chain(one))),
    "set progress": (True, lambda store, one: store.set_progress(one, 2)),
    "progress in a report": (True, lambda store, one: _report(store, one, finished_jobs=2)),
    "end in a report": (True, lambda store, one: _report(store, one, ends=State.FAIL)),
    "suspension in a report": (True, lambda store, one: _report(store, one, ends=a_suspended_chain(one))),
    "end of an assignment": (
        True,
        lambda store, one: store.end_assignment(Assignment(request_id=one, epoch=1), State.FAIL),
    ),
}
"""Changes by name: whether the request is RUNNING before, and the change."""


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_stamps_the_request(migrated_url: str, name: str) -> None:
    is_running, change = CHANGES[name]
    store = await Store.open(migrated_url)
    await store.renew_runner(RUNNER, 60.0, draining=False)
    request = await create(store, RUNNER if is_running else None)
    (before,) = await read_rows(migrated_url, select(requests))
    await change(store, request.id)
    (after,) = await read_rows(migrated_url, select(requests))
    position = (await store.read_changes(None, None)).position
    await store.close()
    assert before.change_stamp is not None
    assert after != before
    assert after.change_stamp != before.change_stamp
    assert position.has(after.change_stamp)


@pytest.mark.parametrize("way", ["a report", "a single entry"])
async def test_a_new_try_is_stamped_and_keeps_its_stamp(migrated_url: str, way: str) -> None:
    store = await Store.open(migrated_url)
    request = await create(store)
    stamps = []
    for _ in range(2):  # The second time, the try is known.
        if way == "a report":
            entry = a_log_entry(request.id)
            assert not await store.apply_reports(RUNNER.runner_id, [a_report(request.id, entry)])
        else:
            await store.record_log(a_log_entry(request.id))
        (row,) = await read_rows(migrated_url, select(job_log))
        stamps.append(row.change_stamp)
        await create(store, OTHER_RUNNER)
    await store.close()
    assert stamps[0] is not None
    assert stamps[0] == stamps[1]
