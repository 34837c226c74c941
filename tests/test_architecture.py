"""Imports point one way: checks the rules of docs/architecture.md against the code."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SERVER = REPOSITORY / "server" / "spincycle_server"

ALLOWED = {
    "builtin_jobs": {"forked_children"},
    "chain": set(),
    "database": {"forked_children", "telemetry"},
    "config": {"capabilities", "listening"},
    "gateway": {"identity", "large_work", "listening", "rpc", "shared_messages", "telemetry", "tls"},
    "graph": {"capabilities", "specs"},
    "identity": {"call_threads", "specs", "telemetry", "token_text"},
    "job_runner": {
        "builtin_jobs", "call_threads", "chain", "large_work", "rpc", "stopped_tries", "telemetry",
        "utc_text",
    },
    "maintenance": {"database", "store"},
    "notifications": {"plain_http", "store", "telemetry"},
    "request_manager": {
        "builtin_jobs", "call_threads", "capabilities", "chain", "graph", "identity", "large_work",
        "notifications", "plain_http", "request_ids", "rpc", "shared_messages", "specs", "store",
        "telemetry", "watch",
    },
    "rpc": {"callback_throttle", "identity", "large_work", "logs", "shared_messages", "telemetry"},
    "specs": {"capabilities", "limit_bounds"},
    "store": {
        "callback_throttle", "capabilities", "database", "large_work", "limit_bounds", "stopped_tries",
        "telemetry", "utc_text",
    },
    "telemetry": {"large_work"},
    "tls": {"config", "listening"},
    "watch": {"identity", "shared_messages", "store", "telemetry"},
    "web": {"call_threads", "gateway", "identity", "rpc"},
    "workers": set(),
}  # fmt: skip
"""The packages and single modules of the server that each package may import, besides itself."""

ALLOWED_MODULES = {
    "__main__": {"first_process", "garbage_collection", "grpc_settings", "log_library", "log_output"},
    "call_threads": {"telemetry"},
    "capabilities": set(),
    "callback_throttle": set(),
    "first_process": set(),
    "garbage_collection": set(),
    "python_build": set(),
    "forked_children": {"listening"},
    "grpc_settings": set(),
    "large_work": set(),
    "job_factories": {"builtin_jobs"},
    "limit_bounds": set(),
    "listening": set(),
    "log_library": set(),
    "log_output": set(),
    "logs": {"log_output", "telemetry"},
    "plain_http": set(),
    "request_ids": set(),
    "shared_messages": set(),
    "spec_files": {"specs"},
    "stopped_tries": set(),
    "token_text": set(),
    "utc_text": set(),
}
"""The packages and single modules of the server that each single module may import."""

KNOW_ALL_PACKAGES = {"app", "commands"}
"""The packages that may import all others."""

CLIENT_PACKAGES = {"click", "google", "grpc", "orjson", "rich"}
"""The third-party packages that spincycle_grpc may import, because `pip install .` installs no others."""

PURE = ("specs", "graph", "chain")
"""The packages that do no I/O."""

IMPURE_MODULES = {
    "asyncio", "grpc", "os", "socket", "sqlalchemy", "subprocess", "threading", "time",
}  # fmt: skip


def imports_of(path: Path) -> Iterator[str]:
    """Yields the full name of everything that a file imports, with the names after `import`.

    Raises:
        AssertionError: The file has a relative import, which hides the name of the package.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: line {node.lineno} has a relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def test_every_form_of_an_import_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "sample.py"
    file.write_text(
        "import a.b\nimport c as d\nfrom e.f import g as h, i\nfrom j import k\n"
        "def function():\n    from l.m import n\n"
    )
    assert sorted(imports_of(file)) == ["a.b", "c", "e.f.g", "e.f.i", "j.k", "l.m.n"]
    file.write_text("from ..store import store\n")
    with pytest.raises(AssertionError, match="relative import"):
        list(imports_of(file))


def imports_below(directory: Path) -> Iterator[tuple[str, str]]:
    """Yields each file of a directory with each module that it imports."""
    modules = sorted(directory.rglob("*.py"))
    assert modules, f"{directory} has no modules"
    for path in modules:
        for name in imports_of(path):
            yield str(path.relative_to(REPOSITORY)), name


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_a_package_imports_only_the_packages_that_it_may_import(package: str) -> None:
    wrong = [
        f"{path} imports {name}"
        for path, name in imports_below(SERVER / package)
        if name.startswith("spincycle_server.") and name.split(".")[1] not in ALLOWED[package] | {package}
    ]
    assert not wrong


@pytest.mark.parametrize("module", sorted(ALLOWED_MODULES))
def test_a_single_module_imports_only_the_packages_that_it_may_import(module: str) -> None:
    imported = {
        name.split(".")[1]
        for name in imports_of(SERVER / f"{module}.py")
        if name.startswith("spincycle_server.")
    }
    assert imported <= ALLOWED_MODULES[module]


def test_the_rules_have_no_cycle() -> None:
    assert list(TopologicalSorter({**ALLOWED, **ALLOWED_MODULES}).static_order())


@pytest.mark.parametrize("package", PURE)
def test_the_core_does_no_io(package: str) -> None:
    wrong = [
        f"{path} imports {name}"
        for path, name in imports_below(SERVER / package)
        if name.split(".")[0] in IMPURE_MODULES
    ]
    assert not wrong


def test_no_cancellation_can_be_lost() -> None:
    """`asyncio.wait_for` of Python 3.11 ignores a cancellation at the moment at which it ends."""
    wrong = [
        str(path.relative_to(REPOSITORY))
        for package in (SERVER, REPOSITORY / "spincycle_grpc")
        for path in sorted(package.rglob("*.py"))
        if "asyncio.wait_for(" in path.read_text()
    ]
    assert not wrong, "use asyncio.timeout"


def test_the_client_package_does_not_import_the_server() -> None:
    wrong = [
        f"{path} imports {name}"
        for path, name in imports_below(REPOSITORY / "spincycle_grpc")
        if name.split(".")[0] == "spincycle_server"
    ]
    assert not wrong


def test_the_server_uses_only_public_names_of_the_client_package() -> None:
    wrong = [
        f"{path.relative_to(REPOSITORY)} imports {name}"
        for path in sorted(SERVER.rglob("*.py"))
        for name in imports_of(path)
        if name.startswith("spincycle_grpc.") and any(part.startswith("_") for part in name.split("."))
    ]
    assert not wrong


def test_the_client_package_imports_only_its_own_dependencies() -> None:
    known = {"spincycle_grpc", *sys.stdlib_module_names, *CLIENT_PACKAGES}
    wrong = [
        f"{path} imports {name}"
        for path, name in imports_below(REPOSITORY / "spincycle_grpc")
        if name.split(".")[0] not in known
    ]
    assert not wrong


def test_every_package_and_module_of_the_server_has_a_rule() -> None:
    packages = {path.parent.name for path in SERVER.glob("*/__init__.py")}
    assert packages - KNOW_ALL_PACKAGES == set(ALLOWED)
    assert {path.stem for path in SERVER.glob("*.py")} - {"__init__"} == set(ALLOWED_MODULES)
