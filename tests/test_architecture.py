"""Imports point one way: what docs/architecture.md says of the rooms is read off the code here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

ALLOWED = {
    "server.specs": set(),
    "server.graph": {"server.specs"},
    "server.chain": set(),
    "server.store": {"server.pacing"},
    "server.builtin_jobs": set(),
    "server.rpc": {"server.pacing"},
    "server.gateway": {"server.listening", "server.rpc"},
    "server.request_manager": {
        "server.builtin_jobs", "server.call_threads", "server.chain", "server.graph", "server.request_ids",
        "server.rpc", "server.specs", "server.store",
    },
    "server.job_runner": {"server.builtin_jobs", "server.call_threads", "server.chain", "server.rpc"},
}  # fmt: skip
"""Which rooms of the server each room may import, besides itself."""

PURE = ("server.specs", "server.graph", "server.chain")
IMPURE_MODULES = {"asyncio", "grpc", "sqlalchemy", "socket", "subprocess", "threading"}


def modules_of(package: str) -> list[Path]:
    root = REPOSITORY / package.replace(".", "/")
    return sorted(root.rglob("*.py")) if root.is_dir() else [root.with_suffix(".py")]


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_a_room_imports_only_what_it_may(room: str) -> None:
    wrong = [
        f"{path.relative_to(REPOSITORY)} imports {name}"
        for path in modules_of(room)
        for name in imports_of(path)
        if name.startswith("server.") and room_of(name) not in ALLOWED[room] | {room}
    ]
    assert not wrong
    assert modules_of(room), f"{room} has no modules"


@pytest.mark.parametrize("room", PURE)
def test_the_core_is_pure(room: str) -> None:
    wrong = [
        f"{path.relative_to(REPOSITORY)} imports {name}"
        for path in modules_of(room)
        for name in imports_of(path)
        if name.split(".")[0] in IMPURE_MODULES
    ]
    assert not wrong


def test_what_others_import_does_without_the_server() -> None:
    wrong = [
        f"{path.relative_to(REPOSITORY)} imports {name}"
        for path in modules_of("spincycle_grpc")
        for name in imports_of(path)
        if name.split(".")[0] == "server"
    ]
    assert not wrong


def test_every_room_of_the_server_has_a_rule() -> None:
    rooms = {f"server.{path.parent.name}" for path in (REPOSITORY / "server").glob("*/__init__.py")}
    assert rooms - {"server.app", "server.commands"} == set(ALLOWED)  # These two know all rooms.
