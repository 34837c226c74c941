"""The compose files: what they name exists, and `prepare` makes the files that they mount."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from spincycle_server.config import load_config
from tests.databases import find_binary
from tests.deploy.deployed import DEPLOY, Deployed, image_environment, image_user
from tests.deploy.stopping import longest_stop
from tests.limits import COMMAND

COMPOSE = DEPLOY / "compose"
PROJECT: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
DATABASES = ("mariadb", "postgresql")
DATABASE_USER = 999
"""The user of the images of MariaDB and PostgreSQL."""


def deployed(name: str, service: dict[str, Any]) -> Deployed:
    """Returns what a service of the image runs."""
    files = {
        config["target"]: COMPOSE / PROJECT["configs"][config["source"]]["file"]
        for config in service["configs"]
    }
    environment = {**image_environment(), **service.get("environment", {})}
    return Deployed(name, service["command"], environment, files)


OWN = {
    name: service for name, service in PROJECT["services"].items() if "SPINCYCLE_IMAGE" in service["image"]
}
each_service = pytest.mark.parametrize("name", OWN)


@each_service
def test_the_command_and_its_options_exist(name: str) -> None:
    deployed(name, OWN[name]).check_words()


@each_service
def test_each_file_that_an_option_names_is_mounted(name: str) -> None:
    service = OWN[name]
    process = deployed(name, service)
    secrets = {f"/run/secrets/{secret}" for secret in service["secrets"]}
    if process.is_server:
        assert process.named_files() <= {*process.files, *secrets}
        assert secrets <= process.named_files()
    else:
        assert process.config().database_url_file in secrets


@each_service
def test_a_service_is_confined_and_has_time_to_stop(name: str) -> None:
    service = OWN[name]
    process = deployed(name, service)
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    if process.is_server:
        assert float(service["stop_grace_period"].removesuffix("s")) > longest_stop(
            process.command, process.config()
        )


def test_the_published_ports_are_those_of_the_request_manager_on_loopback() -> None:
    port = deployed("request-manager", OWN["request-manager"]).http_port()
    assert OWN["request-manager"]["ports"] == [
        f"127.0.0.1:{port}:{port}", f"127.0.0.1:{port + 10}:{port + 10}"
    ]  # fmt: skip


def test_servers_reach_each_other_by_the_names_of_their_services() -> None:
    runner = deployed("job-runner", OWN["job-runner"])
    manager = deployed("request-manager", OWN["request-manager"])
    assert runner.config().rm_client_url == (f"https://request-manager:{manager.http_port()}",)
    assert runner.config().job_runner_advertise == "job-runner"
    assert set(OWN["job-runner"]["networks"]) & set(OWN["request-manager"]["networks"]) == {"servers"}


def test_prometheus_scrapes_the_ports_of_the_servers_and_has_the_alert_rules(tmp_path: Path) -> None:
    service = PROJECT["services"]["prometheus"]
    files = {
        config["target"]: COMPOSE / PROJECT["configs"][config["source"]]["file"]
        for config in service["configs"]
    }
    for target, file in files.items():
        shutil.copy(file, tmp_path / Path(target).name)
    done = subprocess.run(
        [find_binary("promtool"), "check", "config", tmp_path / "prometheus.yaml"],
        capture_output=True, text=True, timeout=COMMAND, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (scraped,) = yaml.safe_load((tmp_path / "prometheus.yaml").read_text())["scrape_configs"]
    metrics = {
        name: deployed(name, OWN[name]).config().server_metrics for name in ("request-manager", "job-runner")
    }
    targets = [f"{name}:{address.port}" for name, address in metrics.items() if address]
    assert scraped["static_configs"] == [{"targets": targets}]
    assert f"--config.file={next(iter(files))}" in service["command"]


@pytest.mark.parametrize("database", DATABASES)
def test_the_database_is_on_a_network_without_a_way_out(database: str) -> None:
    project = yaml.safe_load((COMPOSE / f"{database}.yaml").read_text())
    assert project["services"]["database"]["networks"] == ["database"]
    assert PROJECT["networks"]["database"] == {"internal": True}


@pytest.fixture(params=DATABASES)
def prepared(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A database, and the directory that `prepare` fills for it. For users, docker does nothing."""
    find_binary("openssl")
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text("#!/bin/sh\n")
    docker.chmod(0o755)
    for _ in range(2):  # The second run changes nothing.
        done = subprocess.run(
            [COMPOSE / "prepare", request.param, tmp_path / "secrets"],
            env={**os.environ, "PATH": f"{docker.parent}:{os.environ['PATH']}"},
            capture_output=True, text=True, timeout=COMMAND, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    return request.param, tmp_path / "secrets"


def test_prepare_makes_the_files_that_compose_mounts(prepared: tuple[str, Path]) -> None:
    database, secrets = prepared
    other = yaml.safe_load((COMPOSE / f"{database}.yaml").read_text())
    sources = [*PROJECT["configs"].values(), *PROJECT["secrets"].values(), *other["secrets"].values()]
    for file in (source["file"] for source in sources if source["file"].startswith("secrets/")):
        assert (secrets / Path(file).name).read_bytes()
    for path in secrets.iterdir():
        others = stat.S_IMODE(path.stat().st_mode) & 0o077
        assert (path.name, others) == (
            path.name,
            0o044 if path.suffix == ".pem" and "key" not in path.name else 0,
        )
    if os.getuid() == 0:
        assert (secrets / "cluster.key").stat().st_uid == image_user()
        assert (secrets / "request-manager-key.pem").stat().st_uid == image_user()
        assert (secrets / "database.password").stat().st_uid == DATABASE_USER


def test_prepare_makes_a_url_with_the_password_and_certificates_with_the_names(
    prepared: tuple[str, Path],
) -> None:
    database, secrets = prepared
    url = load_config(environment={"SPINCYCLE_DATABASE_URL_FILE": str(secrets / "database.url")}).store_url()
    scheme = {"mariadb": "mysql", "postgresql": "postgresql"}[database]
    assert url == f"{scheme}://spincycle:{(secrets / 'database.password').read_text()}@database/spincycle"
    for server in ("request-manager", "job-runner"):
        context = ssl.create_default_context(cafile=str(secrets / "ca.pem"))
        context.load_cert_chain(secrets / f"{server}.pem", secrets / f"{server}-key.pem")
        shown = subprocess.run(
            ["openssl", "x509", "-in", secrets / f"{server}.pem", "-noout", "-ext", "subjectAltName"],
            capture_output=True, text=True, check=True, timeout=COMMAND,
        ).stdout  # fmt: skip
        assert re.findall(r"DNS:([\w.-]+)", shown) == [server, "localhost"]


def test_prepare_says_how_to_use_it() -> None:
    done = subprocess.run(
        [COMPOSE / "prepare", "oracle"], capture_output=True, text=True, check=False, timeout=COMMAND
    )
    assert (done.returncode, done.stderr) == (2, "usage: prepare mariadb|postgresql [DIRECTORY]\n")
