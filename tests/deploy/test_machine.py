"""The systemd units run in a machine that systemd-nspawn boots from the image. `make kit` runs this test."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import trustme

from tests.databases import find_binary
from tests.deploy.deployed import DEPLOY
from tests.deploy.images import Image
from tests.limits import COMMAND

pytestmark = pytest.mark.kit

SYSTEMD = DEPLOY / "systemd"
HOSTS = ("rm1.example.com", "rm2.example.com", "runner1.example.com")
"""The names in the configuration files of the kit."""

DRIVER = """
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/bash /kit/machine.sh
"""


@pytest.fixture(scope="module")
def seen(image: Image, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What machine.sh saw, by name."""
    out, etc = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("etc")
    prepare(etc)
    (out / "driver.service").write_text(DRIVER)
    (out / "hosts").write_text(f"127.0.0.1 localhost {' '.join(HOSTS)}\n")
    kit = tmp_path_factory.mktemp("kit")
    shutil.copy(SYSTEMD / "prune-sqlite.conf", kit)
    shutil.copy(Path(__file__).with_name("machine.sh"), kit)
    mounts = {path: f"/etc/systemd/system/{path.name}" for path in (SYSTEMD / "system").iterdir()}
    mounts |= {out / "driver.service": "/etc/systemd/system/driver.service", out / "hosts": "/etc/hosts"}
    mounts |= {kit: "/kit", etc: "/etc/spincycle"}
    done = subprocess.run(
        [
            find_binary("systemd-nspawn"),
            *("--quiet", "--register=no", "--keep-unit", f"--directory={image.root}", "--volatile=overlay"),
            *("--console=read-only", "--private-network", f"--bind={out}:/out"),
            *(f"--bind-ro={source}:{target}" for source, target in mounts.items()),
            *("--boot", "systemd.wants=driver.service", "systemd.log_target=console"),
        ],
        capture_output=True,
        text=True,
        timeout=COMMAND,
        check=False,
    )
    lines = (out / "seen").read_text().splitlines() if (out / "seen").exists() else []
    found = dict(line.split("=", 1) for line in lines)
    journal = (out / "journal").read_text() if (out / "journal").exists() else ""
    assert found.get("end", "").strip() == "reached", (
        f"{found}\n{journal}\n{done.stdout[-5000:]}\n{done.stderr}"
    )
    return {name: value.strip() for name, value in found.items()}


def prepare(etc: Path) -> None:
    """Fills /etc/spincycle as README.md of the units says, with SQLite."""
    for path in (SYSTEMD / "etc").iterdir():
        shutil.copy(path, etc)
    shutil.copy(etc / "job-runner.yaml", etc / "job-runner-deploy.yaml")
    shutil.copytree(DEPLOY.parent / "examples" / "specs", etc / "specs")
    for name in ("tls", "secrets"):
        (etc / name).mkdir()
    authority = trustme.CA()
    certificate = authority.issue_cert(*HOSTS)
    authority.cert_pem.write_to_path(str(etc / "tls" / "ca.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(etc / "tls" / "server.pem"))
    certificate.private_key_pem.write_to_path(str(etc / "secrets" / "server-key.pem"))
    (etc / "secrets" / "cluster.key").write_text("0123456789abcdef" * 4 + "\n")
    for name in ("database.url", "migrate-database.url", "prune-database.url"):
        (etc / "secrets" / name).write_text("sqlite:////tmp/rm.db")
    for path in (etc / "secrets").iterdir():
        path.chmod(0o400)
    (etc / "secrets").chmod(0o700)
    etc.chmod(0o755)


def test_both_servers_in_one_process_are_confined_and_run_a_request(seen: dict[str, str]) -> None:
    assert seen["server.active"] == "active"
    assert "COMPLETE" in seen["server.request"]
    assert "CapEff:\t0000000000000000" in seen["server.status"]
    assert "NoNewPrivs:\t1" in seen["server.status"]
    assert "Seccomp:\t2" in seen["server.status"]
    assert seen["server.database"] == "spincycle 600"


def test_a_server_that_is_killed_or_hangs_starts_again(seen: dict[str, str]) -> None:
    assert seen["server.killed"] == "active"
    assert seen["server.hanging"] == "active"


def test_old_requests_are_deleted_in_the_file_of_the_server(seen: dict[str, str]) -> None:
    assert seen["prune.result"] == "success"


def test_the_servers_apart_run_a_request_with_tls_and_credentials(seen: dict[str, str]) -> None:
    assert seen["migrate.result"] == "success"
    assert (seen["manager.active"], seen["runner.active"]) == ("active", "active")
    assert "COMPLETE" in seen["runner.request"]


def test_the_template_runs_jobs_as_a_user(seen: dict[str, str]) -> None:
    assert seen["template.user"] == "deploy"
    assert "COMPLETE" in seen["template.request"]


def test_servers_stop_cleanly_and_log_no_warning(seen: dict[str, str]) -> None:
    for unit in ("server", "manager", "runner", "template"):
        assert seen[f"{unit}.result"] == "success"
    assert seen["journal.bad"] == "0"
