"""Docker's and Kubernetes' own code reads the kit's files. `make kit` runs these tests; they need Go.

Neither of them runs where the tests run, so their parsers, linters and validators stand for them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spincycle_server.config import load_config
from tests.databases import find_binary
from tests.deploy.deployed import CONTAINERFILE, DEPLOY
from tests.limits import COMMAND
from tests.public_authorities import with_those_of_the_machine

CHECKS = Path(__file__).with_name("checks")
PROGRAMS = Path(__file__).resolve().parents[2] / ".build" / "kit" / "bin"

pytestmark = [pytest.mark.kit, pytest.mark.full]  # Compiling Kubernetes' code takes four minutes of CPU time.

Check = Callable[..., subprocess.CompletedProcess[str]]


def run(*command: str | Path, directory: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end. It may download modules of Go."""
    return subprocess.run(
        command, cwd=directory, env=with_those_of_the_machine(os.environ),
        capture_output=True, text=True, timeout=COMMAND, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def check() -> Check:
    """Runs one of the programs in checks/. Go's build cache makes this quick after the first time."""
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    built = run(find_binary("go"), "build", "-o", f"{PROGRAMS}{os.sep}", "./...", directory=CHECKS)
    assert built.returncode == 0, built.stderr

    def check(program: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
        return run(PROGRAMS / program, *arguments)

    return check


def test_buildkit_finds_nothing_in_the_container_file(check: Check) -> None:
    done = check("containerfile", CONTAINERFILE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_buildkit_finds_a_mistake(check: Check, tmp_path: Path) -> None:
    wrong = tmp_path / "Containerfile"
    wrong.write_text(CONTAINERFILE.read_text() + "ENV DATABASE_PASSWORD=secret\nCMD spincycle server\n")
    done = check("containerfile", wrong)
    assert done.returncode == 1
    assert {line.partition(":")[0] for line in done.stdout.splitlines()} == {
        "SecretsUsedInArgOrEnv", "JSONArgsRecommended", "MultipleInstructionsDisallowed"
    }  # fmt: skip


@pytest.mark.parametrize("database", ["mariadb", "postgresql"])
def test_compose_accepts_the_files(check: Check, database: str) -> None:
    done = check("compose", DEPLOY / "compose" / "compose.yaml", DEPLOY / "compose" / f"{database}.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    project: dict[str, Any] = json.loads(done.stdout)
    services = project["services"]
    assert (
        services["request-manager"]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    )
    for name, service in services.items():
        for mount in (*service.get("secrets", []), *service.get("configs", [])):
            assert mount["source"] in {**project["secrets"], **project["configs"]}, name


def test_compose_refuses_a_field_that_does_not_exist(check: Check, tmp_path: Path) -> None:
    text = (DEPLOY / "compose" / "compose.yaml").read_text()
    (tmp_path / "compose.yaml").write_text(text.replace("stop_grace_period", "stop_grace_periods"))
    done = check("compose", tmp_path / "compose.yaml", DEPLOY / "compose" / "mariadb.yaml")
    assert done.returncode == 1
    assert "stop_grace_periods" in done.stderr


def test_kubernetes_accepts_the_manifests(check: Check) -> None:
    done = check("manifests", DEPLOY / "kubernetes" / "overlays" / "production")
    assert (done.returncode, done.stderr) == (0, "")
    objects = json.loads(done.stdout)
    kinds = {found["kind"] for found in objects}
    assert {"Deployment", "StatefulSet", "ServiceMonitor", "PodDisruptionBudget", "NetworkPolicy"} <= kinds
    assert "Secret" not in kinds
    for found in objects:
        assert found["kind"] == "Namespace" or found["metadata"]["namespace"] == "spincycle"


def test_the_command_of_the_readme_makes_the_alert_rules_an_object(check: Check, tmp_path: Path) -> None:
    directory = DEPLOY / "kubernetes"
    (command,) = re.findall(
        r"^(\{ printf .*?\}) \| kubectl", (directory / "README.md").read_text(), re.M | re.S
    )
    made = run("sh", "-c", command, directory=directory)
    assert made.returncode == 0, made.stderr
    (tmp_path / "rules.yaml").write_text(made.stdout)
    (tmp_path / "kustomization.yaml").write_text("resources: [rules.yaml]\n")
    done = check("manifests", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (rules,) = json.loads(done.stdout)
    assert rules["spec"]["groups"]


def test_the_component_for_traces_reaches_both_servers(check: Check, tmp_path: Path) -> None:
    kubernetes = tmp_path / "kubernetes"
    shutil.copytree(DEPLOY / "kubernetes", kubernetes)
    overlay = kubernetes / "overlays" / "production" / "kustomization.yaml"
    overlay.write_text(
        overlay.read_text().replace("# - ../../components/tracing", "- ../../components/tracing")
    )
    done = check("manifests", overlay.parent)
    assert (done.returncode, done.stderr) == (0, "")
    variables = {
        found["metadata"]["name"]: load_config(
            environment={
                variable["name"]: variable["value"]
                for variable in found["spec"]["template"]["spec"]["containers"][0]["env"]
                if variable["name"].startswith("SPINCYCLE_TELEMETRY")
            }
        ).telemetry_otlp
        for found in json.loads(done.stdout)
        if found["kind"] in ("Deployment", "StatefulSet")
    }
    collector = "http://collector.tracing.svc:4318"
    assert variables == {"spincycle-request-manager": collector, "spincycle-job-runner": collector}


MISTAKES = {
    "an unknown field": ("livenessProbe:", "aliveProbe:", "unknown field"),
    "an invalid combination": ("maxSurge: 1", "maxSurge: 0", "may not be 0 when `maxSurge` is 0"),
    "a pod with too many rights": ("drop: [ALL]", "drop: [NET_RAW]", "unrestricted capabilities"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_kubernetes_refuses(check: Check, tmp_path: Path, mistake: str) -> None:
    right, wrong, message = MISTAKES[mistake]
    base = tmp_path / "base"
    shutil.copytree(DEPLOY / "kubernetes" / "base", base)
    manifest = base / "request-manager.yaml"
    manifest.write_text(manifest.read_text().replace(right, wrong))
    done = check("manifests", base)
    assert done.returncode == 1
    assert message in done.stderr
