"""Clients that generators make of the OpenAPI documents of a server compile, and call that server.

The programs in `tests/interop/openapi` create a request, read it until it is complete, read its log, and read
a request that does not exist.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import httpx
import pytest

from tests.databases import find_binary
from tests.e2e.processes import ServerProcess
from tests.interop.clients import run
from tests.interop.go_tools import go_tool
from tests.interop.trees import TREES
from tests.limits import ANSWER

pytestmark = [pytest.mark.interop, pytest.mark.full]

CALLERS = Path(__file__).with_name("openapi")
GENERATOR = "org.openapitools:openapi-generator-cli:7.25.0"
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"

PYTHON_PACKAGES = ("pydantic==2.14.4", "python-dateutil==4.0.0", "urllib3==2.8.0")
"""What the generated client in Python needs."""


@pytest.fixture(scope="module")
def url(server: ServerProcess) -> str:
    return f"http://{server.address('request-manager', 'http')}"


@pytest.fixture
def directory(request: pytest.FixtureRequest) -> Path:
    """A new directory for the client. What build tools download is kept in their own caches."""
    path = TREES / "openapi" / re.sub(r"^test_|_calls_a_server$", "", request.node.originalname)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


@pytest.fixture(scope="module")
def node_modules() -> Path:
    """The packages that the callers in TypeScript need."""
    find_binary("npm")
    directory = TREES / "openapi-packages"
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(CALLERS / name, directory)
    run("npm", "ci", "--no-audit", directory=directory)
    return directory / "node_modules"


def document(url: str, directory: Path, name: str = "openapi.json") -> Path:
    """Downloads an OpenAPI document of the server."""
    path = directory / name
    path.write_bytes(httpx.get(f"{url}/{name}", timeout=ANSWER).content)
    return path


def generate(generator: str, url: str, directory: Path, output: Path, *options: str) -> None:
    """Runs openapi-generator."""
    _, name, version = GENERATOR.split(":")
    jar = TREES / "bin" / f"{name}-{version}.jar"
    if not jar.exists():
        maven = (find_binary("mvn"), "--batch-mode", "--quiet")
        run(*maven, COPY, f"-Dartifact={GENERATOR}", f"-DoutputDirectory={jar.parent}", directory=directory)
    run(
        "java", "-jar", str(jar), "generate", f"--generator-name={generator}",
        f"--input-spec={document(url, directory)}", f"--output={output}", *options, directory=directory,
    )  # fmt: skip


def assert_called(output: str) -> None:
    assert output.strip() == "complete 5 log 5 error 404"


def test_openapi_generator_go_calls_a_server(url: str, directory: Path) -> None:
    generate("go", url, directory, directory, "--git-user-id=example", "--git-repo-id=client")
    shutil.rmtree(directory / "test")  # It needs further modules.
    (directory / "cmd").mkdir()
    shutil.copy(CALLERS / "go" / "main.go", directory / "cmd")
    run("go", "mod", "tidy", directory=directory)
    run("go", "vet", "./...", directory=directory)
    assert_called(run("go", "run", "./cmd", url, directory=directory))


def test_oapi_codegen_calls_a_server(url: str, directory: Path) -> None:
    shutil.copytree(CALLERS / "oapi_codegen", directory, dirs_exist_ok=True)
    (directory / "client").mkdir()
    run(
        str(go_tool("oapi-codegen")), "-generate=types,client", "-package=client", "-o=client/client.go",
        str(document(url, directory, "openapi-3.0.json")), directory=directory,
    )  # fmt: skip
    run("go", "mod", "tidy", directory=directory)
    run("go", "vet", "./...", directory=directory)
    assert_called(run("go", "run", ".", url, directory=directory))


def test_openapi_generator_java_calls_a_server(url: str, directory: Path) -> None:
    option = "--additional-properties=useSingleRequestParameter=true"  # See docs/clients.md.
    generate("java", url, directory, directory, option)
    skipped = ("-Dmaven.test.skip=true", "-Dmaven.javadoc.skip=true", "-Dmaven.source.skip=true")
    run(find_binary("mvn"), "--batch-mode", "--quiet", *skipped, "package", directory=directory)
    caller = str(CALLERS / "java" / "Call.java")
    assert_called(run("java", "-cp", "target/classes:target/lib/*", caller, url, directory=directory))


def test_openapi_generator_typescript_fetch_calls_a_server(
    url: str, directory: Path, node_modules: Path
) -> None:
    option = "--additional-properties=importFileExtension=.js"
    generate("typescript-fetch", url, directory, directory / "client", option)
    assert_called(call_compiled("typescript_fetch", url, directory, node_modules))


def test_openapi_typescript_calls_a_server(url: str, directory: Path, node_modules: Path) -> None:
    program = node_modules / ".bin" / "openapi-typescript"
    run(str(program), str(document(url, directory)), "--output=client/paths.d.ts", directory=directory)
    assert_called(call_compiled("openapi_typescript", url, directory, node_modules))


def call_compiled(caller: str, url: str, directory: Path, node_modules: Path) -> str:
    """Compiles and runs a caller in TypeScript."""
    shutil.copytree(CALLERS / caller, directory, dirs_exist_ok=True)
    for name in ("package.json", "tsconfig.json"):
        shutil.copy(CALLERS / name, directory)
    (directory / "node_modules").symlink_to(node_modules)
    run(str(node_modules / ".bin" / "tsc"), "--project", ".", directory=directory)
    return run("node", "call.js", url, directory=directory)


def test_openapi_generator_python_calls_a_server(url: str, directory: Path) -> None:
    generate("python", url, directory, directory)
    uv = Path(sys.executable).with_name("uv")
    run(str(uv), "pip", "install", "--quiet", "--target=packages", *PYTHON_PACKAGES, directory=directory)
    path = os.pathsep.join((str(directory), str(directory / "packages")))
    caller = str(CALLERS / "call.py")
    command = ("env", f"PYTHONPATH={path}", sys.executable, "-W", "error", caller, url)
    assert_called(run(*command, directory=directory))
