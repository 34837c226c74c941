"""The services of compose.yaml run as containers, with a real MariaDB. `make kit` runs this test.

They share one network here, where Docker gives each its own: names lead to loopback, and the runner has
another port for its metrics.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.databases import DatabaseServer, SharedServers, find_binary
from tests.deploy.deployed import DEPLOY
from tests.deploy.images import Container, Image, Mount, container, run
from tests.e2e.waiting import eventually
from tests.limits import PROCESS_END

pytestmark = pytest.mark.kit

COMPOSE = DEPLOY / "compose"


@pytest.fixture
def network() -> Iterator[int]:
    """A process with a network of its own, which has loopback."""
    words = [
        find_binary("bwrap"),
        "--unshare-net",
        "--die-with-parent",
        "--dev-bind",
        "/",
        "/",
        "sleep",
        "3600",
    ]
    with subprocess.Popen(words) as holder:
        (sleeper,) = eventually(lambda: psutil.Process(holder.pid).children())
        yield sleeper.pid
        sleeper.kill()


@pytest.fixture
def project(tmp_path: Path, database_servers: SharedServers) -> dict[str, Any]:
    """compose.yaml, whose files are prepared in a copy. The database is reached through its socket."""
    shutil.copytree(COMPOSE, tmp_path / "compose")
    run(tmp_path / "compose" / "prepare", "mariadb", environment={"PATH": "/usr/bin:/bin"})
    server = database_servers.get("mariadb")
    url = tmp_path / "compose" / "secrets" / "database.url"
    url.write_text(socket_url(server))
    (tmp_path / "hosts").write_text("127.0.0.1 localhost request-manager job-runner database\n")
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    text = (tmp_path / "compose" / "compose.yaml").read_text()
    return {**yaml.safe_load(text), "directory": tmp_path, "database": server.directory}


def socket_url(server: DatabaseServer) -> str:
    """Returns the URL of a new database, for the socket as containers see it."""
    name = server.fresh_database().rpartition("/")[2]
    return f"mysql://root@localhost/{name}?unix_socket=/run/database/socket"


@contextlib.contextmanager
def running(
    image: Image,
    project: dict[str, Any],
    name: str,
    network: int,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Container]:
    """Runs a service."""
    service = project["services"][name]
    directory: Path = project["directory"]
    files = {
        **{file["target"]: project["configs"][file["source"]]["file"] for file in service["configs"]},
        **{f"/run/secrets/{secret}": project["secrets"][secret]["file"] for secret in service["secrets"]},
    }
    mounts = [
        # bubblewrap makes missing directories for its own user alone, so all of them are here.
        *(Mount(place) for place in ("/tmp", "/run", "/run/secrets", "/etc/spincycle", "/etc/spincycle/tls")),
        Mount("/var/lib/spincycle"),
        Mount("/etc/hosts", directory / "hosts"),
        Mount("/run/database", project["database"]),
        Mount("/etc/spincycle/specs", DEPLOY.parent / "examples" / "specs"),
        *(Mount(target, directory / "compose" / file) for target, file in files.items()),
    ]
    with container(image, service["command"], environment, mounts, network) as started:
        yield started


def test_the_services_migrate_start_and_run_a_request_with_tls(
    image: Image, project: dict[str, Any], network: int
) -> None:
    with running(image, project, "migrate", network) as migration:
        assert migration.process.wait(PROCESS_END) == 0, migration.log()
    metrics = {"SPINCYCLE_SERVER_METRICS": "127.0.0.1:9465"}
    with contextlib.ExitStack() as stack:
        manager = stack.enter_context(running(image, project, "request-manager", network))
        manager.wait_for("listening")
        runner = stack.enter_context(running(image, project, "job-runner", network, metrics))
        runner.wait_for("reporting")
        config = "/etc/spincycle/request-manager.yaml"
        script = f"umask 077; spincycle token create ada --role admin {config} > /tmp/token"
        assert manager.execute(image, "sh", "-c", script).returncode == 0
        done = manager.execute(
            image, "spinc", "--addr=request-manager:32318", "--ca=/etc/spincycle/tls/ca.pem",
            "--token-file=/tmp/token", "start", "nap", "ms=100", "--wait",
        )  # fmt: skip
        assert "COMPLETE" in done.stdout, done.stderr
        assert runner.terminate() == 0
        assert manager.terminate() == 0
        problems = [event for event in (*manager.events, *runner.events) if event["level"] != "info"]
        assert problems == []
