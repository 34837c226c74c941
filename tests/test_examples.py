"""The example specs and clients: what they name exists, and the programs behave as the specs expect."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from spincycle_server.builtin_jobs import builtin_factory
from spincycle_server.job_factories import knows_job_type
from tests.limits import COMMAND

ROOT = Path(__file__).parent.parent
SPECS = sorted((ROOT / "examples" / "specs").glob("*.yaml"))
CLIENTS = sorted(path.parent for path in (ROOT / "examples" / "clients").glob("*/README.md"))
HOSTS = ["web1", "web2", "web3", "web4", "web5"]


def sequences() -> dict[str, Any]:
    """Returns the sequences of all example specs."""
    return {
        name: sequence
        for file in SPECS
        for name, sequence in yaml.safe_load(file.read_text())["sequences"].items()
    }


def run(program: str, host: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Runs an example program, which keeps its state in a directory."""
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(directory)}
    return subprocess.run(
        [ROOT / "examples" / "bin" / program, host],
        env=environment,
        capture_output=True,
        text=True,
        timeout=COMMAND,
        check=False,
    )


def test_the_examples_use_only_builtin_job_types() -> None:
    knows = knows_job_type(builtin_factory)
    types = {
        node["type"]
        for sequence in sequences().values()
        for node in sequence["nodes"].values()
        if node["category"] == "job"
    }
    assert types == {"sleep", "shell-command"}
    assert all(knows(job_type) for job_type in types)


def test_every_program_that_the_specs_name_exists() -> None:
    programs = {
        arg["default"]
        for sequence in sequences().values()
        for arg in sequence.get("args", {}).get("static", [])
        if arg["name"].endswith("program")
    }
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "examples" / "bin").iterdir()} == programs


@pytest.mark.parametrize("host", HOSTS)
def test_a_restarted_host_answers_after_a_few_checks(host: str, tmp_path: Path) -> None:
    retries = sequences()["restart-host"]["nodes"]["check"]["retry"]
    restarted = run("restart-host", host, tmp_path)
    assert (restarted.returncode, restarted.stdout) == (0, f"{host} restarts\n")
    checks = [run("check-host", host, tmp_path)]
    while checks[-1].returncode:
        assert checks[-1].stderr == f"{host} does not answer yet\n"
        checks.append(run("check-host", host, tmp_path))
    assert 1 <= len(checks) - 1 < retries
    assert checks[-1].stdout == f"{host} answers\n"
    assert run("check-host", host, tmp_path).returncode == 0


@pytest.mark.parametrize("program", ["restart-host", "check-host"])
@pytest.mark.parametrize("name", ["../web1", "/web1", "", ".", "web1;ls"])
def test_a_program_rejects_an_invalid_host_name(program: str, name: str, tmp_path: Path) -> None:
    refused = run(program, name, tmp_path)
    assert (refused.returncode, refused.stderr) == (2, f"{name} is not a valid host name\n")
    assert not list(tmp_path.iterdir())


def test_the_announcement_names_the_service(tmp_path: Path) -> None:
    assert "hosts of web are being restarted" in run("announce-restart", "web", tmp_path).stdout


@pytest.mark.parametrize("client", CLIENTS, ids=lambda path: path.name)
def test_a_client_is_built_and_run_with_a_few_commands(client: Path) -> None:
    [block] = re.findall(r"^```sh\n(.*?)^```$", (client / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    commands = block.splitlines()
    assert 1 <= len(commands) < 10
    assert commands[-1].endswith(" run nap ms=1500")


def test_lock_files_name_no_registry() -> None:
    locks = [ROOT / "examples/clients" / name for name in ("go/go.sum", "typescript/package-lock.json")]
    for lock in locks:
        assert "://" not in re.sub(r'"(url|homepage|funding)": ?"[^"]*"', "", lock.read_text()), lock


@pytest.mark.parametrize(
    ("language", "pattern"),
    [("go", "go/*.go"), ("java", "java/**/*.java"), ("rust", "rust/src/*.rs"), ("ts", "typescript/src/*.ts")],
)
def test_the_page_about_clients_shows_lines_of_the_programs(language: str, pattern: str) -> None:
    page = (ROOT / "docs" / "clients.md").read_text()
    [block] = re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    programs = (ROOT / "examples" / "clients").glob(pattern)
    lines = {line.strip() for program in programs for line in program.read_text().splitlines()}
    shown = [line.strip() for line in block.splitlines()]
    assert [line for line in shown if line not in lines] == []
    assert 5 < len(shown) <= 10
