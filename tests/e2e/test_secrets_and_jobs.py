"""What jobs find out about the secrets of their server."""

from __future__ import annotations

from pathlib import Path

import pytest

from spincycle_grpc import Client
from tests.e2e.processes import running
from tests.limits import REQUEST_END

SPEC = """
sequences:
  look:
    request: true
    args: {required: [{name: cmd, desc: program}, {name: args, desc: script}]}
    nodes:
      look: {category: job, type: shell-command, args: [{expected: cmd}, {expected: args}]}
"""
SCRIPT = r"""
env
echo ---
tr '\0' '\n' </proc/$PPID/environ
tr '\0' '\n' </proc/$PPID/cmdline
"""
"""Prints its own environment, and the environment and the command line of the server."""


def looked(directory: Path, *arguments: str, **environment: str) -> tuple[str, str]:
    """Returns what a command of a server prints about its own environment, and about the server."""
    (directory / "specs").mkdir()
    (directory / "specs" / "look.yaml").write_text(SPEC)
    (directory / "look.sh").write_text(SCRIPT)
    with running(
        "server", "--http=127.0.0.1:0", "--specs=specs", *arguments,
        directory=directory, environment=environment, anew=True,
    ) as server:  # fmt: skip
        server.wait_for("runner reports")
        with Client(server.address("request-manager", "grpc")) as client:
            created = client.create("look", {"cmd": "sh", "args": str(directory / "look.sh")})
            client.wait(created.id, deadline=REQUEST_END)
            [entry] = [entry for entry in client.log(created.id) if entry.type == "shell-command"]
        assert server.terminate() == 0
    assert entry.exit == 0, entry.stderr
    own, _, of_server = entry.stdout.partition("---\n")
    return own, of_server


@pytest.mark.parametrize("variable", ["SPINCYCLE_MYSQL_DSN", "SPINCYCLE_RM_SERVICE_HOST"])
def test_jobs_do_not_inherit_the_variables_of_the_servers(variable: str, tmp_path: Path) -> None:
    environment = {variable: "spin:s3cret@tcp(db:3306)/spin", "ENVIRONMENT": "staging", "MY_SPINCYCLE_X": "x"}
    own, _ = looked(tmp_path, f"--db=sqlite:///{tmp_path}/x.db", **environment)
    assert [line for line in own.splitlines() if line.startswith("SPINCYCLE_")] == []
    assert "s3cret" not in own
    assert {"ENVIRONMENT=staging", "MY_SPINCYCLE_X=x"} <= set(own.splitlines())


def test_a_secret_in_a_file_is_not_in_the_process_of_the_server(tmp_path: Path) -> None:
    (tmp_path / "url").write_text(f"sqlite:///{tmp_path}/s3cret.db\n")
    own, of_server = looked(tmp_path, SPINCYCLE_DATABASE_URL_FILE=str(tmp_path / "url"))
    assert (tmp_path / "s3cret.db").exists()
    assert "SPINCYCLE_DATABASE_URL_FILE" in of_server
    assert "s3cret" not in own + of_server
