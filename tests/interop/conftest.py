"""Builds the example clients, and runs servers for them. `make interop` runs these tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.processes import SPECS, ServerProcess, running
from tests.interop.clients import SHORT, BuiltClient, Language
from tests.interop.trees import copy_clone, unpack_zip
from tests.limits import ANSWER

GATE_SPEC = """
sequences:
  gate:
    request: true
    args: {required: [{name: file}], static: [{name: program, default: tests/interop/gate}]}
    nodes:
      first: {category: job, type: noop}
      wait:
        category: job
        type: shell-command
        args: [{expected: cmd, given: program}, {expected: args, given: file}]
        deps: [first]
"""
"""A request whose job runs until a file exists."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the languages that a short run does not have."""
    if not config.getoption("--short"):
        return
    left_out = [item for item in items if _is_long(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _is_long(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    language = callspec.params.get("language") if callspec else None
    return language is not None and language.name not in SHORT


@pytest.fixture(scope="session")
def specs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the specs of the recordings, and the request type `gate`."""
    directory = tmp_path_factory.mktemp("specs")
    shutil.copytree(SPECS, directory, dirs_exist_ok=True)
    program = Path(__file__).with_name("gate.sh")
    (directory / "gate.yaml").write_text(GATE_SPEC.replace("tests/interop/gate", str(program)))
    return directory


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, specs: Path) -> Iterator[ServerProcess]:
    """A Request Manager and a Job Runner in one process."""
    directory = tmp_path_factory.mktemp("server")
    environment = {"SPINCYCLE_SPECS_DIR": str(specs)}
    with running("server", "--http=127.0.0.1:0", directory=directory, environment=environment) as server:
        server.wait_for("reporting")
        yield server


@pytest.fixture(scope="session")
def build(server: ServerProcess) -> Callable[[Language, str], BuiltClient]:
    """Builds a client once, from the contracts of the clone or from those of a server."""
    trees = {}
    built: dict[tuple[str, str], BuiltClient] = {}

    def build(language: Language, source: str) -> BuiltClient:
        if source not in trees:
            if source == "clone":
                trees[source] = copy_clone()
            else:
                url = f"http://{server.address('request-manager', 'http')}/protos.zip"
                trees[source] = unpack_zip(httpx.get(url, timeout=ANSWER).content)
        key = (language.name, source)
        if key not in built:
            built[key] = language.build(trees[source])
        return built[key]

    return build
