"""Which libraries a command loads: those of the servers are slow to load, and only servers need them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from spincycle_server.__main__ import SERVER_PACKAGES
from tests.limits import COMMAND

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "examples" / "specs"
PROGRAM = """
import atexit, sys
from spincycle_server.__main__ import main
atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))
sys.argv[0] = "spincycle"
main()
"""


def modules_after(directory: Path, *arguments: str) -> set[str]:
    """Returns the names of the modules that a process has loaded when its command has succeeded."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=COMMAND,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a database whose schema is current."""
    directory = tmp_path_factory.mktemp("migrated")
    modules_after(directory, "migrate")
    return directory


@pytest.mark.parametrize(
    "command",
    [("migrate", "--check"), ("prune", "--older-than=1h"), ("token", "create", "alice"), ("audit",)],
)
def test_database_commands_load_no_server_and_no_migrations(command: tuple[str, ...], migrated: Path) -> None:
    modules = modules_after(migrated, *command)
    assert "spincycle_server.database.engine" in modules
    rooms = {f"spincycle_server.{room}" for room in ("rpc", "gateway", "request_manager", "specs")}
    assert modules & {"alembic", "grpc", "rich", "uvicorn", "uvloop", "starlette", *rooms} == set()


@pytest.mark.parametrize("command", [("lint", str(EXAMPLES)), ("graph", str(EXAMPLES), "nap")])
def test_spec_commands_load_neither_a_server_nor_a_database(command: tuple[str, ...], tmp_path: Path) -> None:
    modules = modules_after(tmp_path, *command)
    assert "spincycle_server.specs.parser" in modules
    assert modules & {"grpc", "uvicorn", "uvloop", "starlette", "sqlalchemy", "alembic"} == set()


def test_a_server_loads_neither_the_library_of_oidc_nor_those_of_databases_before_it_needs_them(
    tmp_path: Path,
) -> None:
    program = "import sys, spincycle_server.commands.server, spincycle_server.app.request_manager as _"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; print(*sys.modules)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=COMMAND,
        check=True,
    )
    modules = set(done.stdout.split())
    assert "sqlalchemy" in modules
    assert modules & {"joserfc", "pymysql", "psycopg"} == set()


def test_spincycle_looks_for_every_package_that_the_extra_server_installs() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    required = {name_of(text) for text in project["optional-dependencies"]["server"]}
    client = {name_of(text) for text in project["dependencies"]}
    imported = {
        name
        for name, distributions in packages_distributions().items()
        if not name.startswith("_") and {text.lower() for text in distributions} & (required - client)
    }
    assert imported == set(SERVER_PACKAGES)


def name_of(requirement: str) -> str:
    found = re.match(r"[\w-]+", requirement)
    assert found
    return found[0]
