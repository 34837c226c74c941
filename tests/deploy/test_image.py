"""The image is built and run as a container without Docker. `make kit` runs these tests."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.images import Container, Image, Mount, container
from tests.e2e.waiting import eventually
from tests.limits import COMMAND

pytestmark = pytest.mark.kit

SPECS = """
sequences:
  leave-orphan:
    request: true
    args: {static: [{name: program, default: /etc/spincycle/specs/leave_orphan.sh}]}
    nodes:
      leave:
        category: job
        type: shell-command
        args: [{expected: cmd, given: program}]
  long:
    request: true
    args: {static: [{name: duration, default: "3600000"}]}
    nodes:
      sleep: {category: job, type: sleep, args: [{expected: duration}]}
"""


@pytest.fixture(scope="module")
def running(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """A container with the command of the image: both servers in one process, with SQLite."""
    specs, data = tmp_path_factory.mktemp("specs"), tmp_path_factory.mktemp("data")
    for directory in (specs, *specs.parents[:2]):
        directory.chmod(0o755)
    (specs / "specs.yaml").write_text(SPECS)
    (specs / "leave_orphan.sh").write_text("#!/bin/sh\nsetsid --fork sleep 3\n")
    (specs / "leave_orphan.sh").chmod(0o755)
    shutil.chown(data, 10001, 10001)
    mounts = [
        Mount("/tmp"),
        Mount("/etc/spincycle/specs", specs),
        Mount("/var/lib/spincycle", data, writable=True),
    ]
    with container(image, mounts=mounts) as started:
        started.wait_for("reporting")
        yield started


def spinc(running: Container, image: Image, *words: str) -> str:
    done = running.execute(image, "spinc", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_says_what_it_is(image: Image) -> None:
    assert image.config["Labels"]["org.opencontainers.image.version"] == "1.2.3"
    assert image.config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert image.config["StopSignal"] == "SIGTERM"
    assert image.config["User"] == "10001:10001"


def test_it_has_neither_tools_to_install_nor_files_that_its_user_can_change(image: Image) -> None:
    packages = image.root / "opt/spincycle/lib/python3.11/site-packages"
    assert (packages / "spincycle_server").is_dir()
    assert [path.name for path in packages.glob("*") if path.name.startswith(("pip", "setuptools"))] == []
    changeable = [path for path in (image.root / "opt").rglob("*") if path.lstat().st_uid != 0]
    assert changeable == []
    assert not (image.root / "etc/pip.conf").exists()
    compiled = list((packages / "spincycle_server").rglob("*.pyc"))
    assert len(compiled) == len(list((packages / "spincycle_server").rglob("*.py")))


def test_the_server_is_process_1_without_rights_on_a_read_only_file_system(
    running: Container, image: Image
) -> None:
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{running.first.pid}/status").read_text().splitlines()
    )
    assert status["NSpid"].split()[-1] == "1"
    assert status["Uid"].split() == ["10001"] * 4
    assert int(status["CapEff"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert "Read-only file system" in running.execute(image, "touch", "/opt/spincycle/x").stderr
    assert running.execute(image, "touch", "/tmp/x").returncode == 0


def test_it_is_healthy(running: Container, image: Image) -> None:
    kind, *command = image.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    assert running.execute(image, *command).returncode == 0


def test_it_serves_the_web_page(running: Container, image: Image) -> None:
    ask = (
        "from urllib.request import urlopen; answer = urlopen('http://127.0.0.1:32308/'); "
        "print(answer.headers['Content-Type'], '<script' in answer.read().decode())"
    )
    done = running.execute(image, "python", "-I", "-c", ask)
    assert done.stdout == "text/html; charset=UTF-8 True\n", done.stderr


def test_it_can_send_traces(running: Container, image: Image) -> None:
    done = running.execute(image, "python", "-I", "-c", "import spincycle_server.telemetry.spans_export")
    assert done.returncode == 0, done.stderr


def test_it_runs_a_request_and_collects_the_orphans_of_jobs(running: Container, image: Image) -> None:
    assert "COMPLETE" in spinc(running, image, "start", "leave-orphan", "--wait")
    assert "sleep" in eventually(lambda: [child.name() for child in running.first.children()][1:])
    eventually(lambda: len(running.first.children()) == 1)  # A zombie would stay.


def test_it_drains_on_sigterm(running: Container, image: Image) -> None:
    spinc(running, image, "start", "long")
    eventually(lambda: "sleep" in spinc(running, image, "ps"))
    assert running.terminate(getattr(signal, image.config["StopSignal"])) == 0
    assert running.wait_for("shutting down", signal="SIGTERM")
    assert running.events[-1]["message"] == "shut down"


def test_its_health_check_fails_without_a_server(image: Image) -> None:
    _, _, *words = image.config["Healthcheck"]["Test"]
    done = subprocess.run(
        ["unshare", "--net", sys.executable, *words], capture_output=True, timeout=COMMAND, check=False
    )
    assert b"ConnectionRefusedError" in done.stderr or b"OSError" in done.stderr
    assert done.returncode == 1
