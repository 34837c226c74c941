"""SIGHUP reloads, and ends a server only if its terminal is gone."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from pathlib import Path

import httpx

from tests.e2e.processes import REPOSITORY, SPECS, ServerProcess, running
from tests.e2e.waiting import eventually
from tests.limits import ANSWER, LOG_LINE, PROCESS_END


def test_a_server_without_tls_continues_after_sighup(tmp_path: Path) -> None:
    with running("server", "--http=127.0.0.1:0", directory=tmp_path) as server:
        address = server.address("request-manager", "http")
        server.wait_for("reporting")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("reloading specs, certificates and log level")
        assert httpx.get(f"http://{address}/version", timeout=ANSWER).status_code == 200
        assert server.terminate() == 0


def test_a_server_whose_terminal_is_closed_shuts_down(tmp_path: Path) -> None:
    master, terminal = pty.openpty()

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, "-m", "spincycle_server", "server", "--http=127.0.0.1:0"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "SPINCYCLE_SPECS_DIR": str(SPECS),
            "SPINCYCLE_JOBS": "tests.fixture_jobs:factory",
            "SPINCYCLE_JOB_RUNNER_ADDR": "127.0.0.1:0",
            "SPINCYCLE_LOG_FORMAT": "json",
        },
        stdin=terminal,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=own_terminal,  # noqa: PLW1509 (the test has no other threads that hold locks)
    )
    server = ServerProcess(process)
    try:
        os.close(terminal)
        server.wait_for("reporting")
        process.send_signal(signal.SIGHUP)
        server.wait_for("reloading specs, certificates and log level")
        os.close(master)
        server.wait_for("shutting down", signal="SIGHUP")
        assert process.wait(PROCESS_END) == 0
    finally:
        server.close()


NOTHING = "sequences: {%s: {request: true, nodes: {a: {category: job, type: noop}}}}\n"


NOT_RELOADED = "not reloaded because of errors: the earlier version stays in use"


NO_DRAIN = {"SPINCYCLE_JOB_RUNNER_STOP_TIMEOUT": "100ms", "SPINCYCLE_SERVER_STOP_TIMEOUT": "100ms"}
"""For a Job Runner without a Request Manager, which otherwise waits for one when it shuts down."""


def reload_until(server: ServerProcess, message: str, **values: str) -> None:
    server.process.send_signal(signal.SIGHUP)
    server.wait_for(message, LOG_LINE, **values)


def count_refusals(server: ServerProcess) -> int:
    return sum(event["message"] == NOT_RELOADED for event in server.events)


def status_of_create(http: httpx.Client, request_type: str) -> int:
    return http.post("/api/v1/requests", json={"type": request_type}).status_code


def test_sighup_loads_the_specs_again_unless_they_have_errors(tmp_path: Path) -> None:
    specs = tmp_path / "specs"
    specs.mkdir()
    (specs / "a.yaml").write_text(NOTHING % "first")
    environment = {"SPINCYCLE_SPECS_DIR": str(specs)}
    with running("server", "--http=127.0.0.1:0", directory=tmp_path, environment=environment) as server:
        base_url = f"http://{server.address('request-manager', 'http')}"
        with httpx.Client(base_url=base_url, timeout=ANSWER) as http:
            assert [status_of_create(http, name) for name in ("first", "second")] == [201, 400]
            for broken in (
                "sequences: [",
                "sequences: {x: {nodes: {a: {category: job, type: unknown}}}}",
                "sequences: {x: {nodes: {a: {category: approval, roles: [dba]}}}}",  # without users
                "\0",
            ):
                (specs / "b.yaml").write_text(broken)
                kept = count_refusals(server)
                server.process.send_signal(signal.SIGHUP)
                eventually(lambda kept=kept: count_refusals(server) > kept)  # type: ignore[misc]
                assert [status_of_create(http, name) for name in ("first", "second")] == [201, 400]
            (specs / "b.yaml").unlink()
            (specs / "a.yaml").write_text(NOTHING % "second")
            reload_until(server, "specs reloaded")
            assert [status_of_create(http, name) for name in ("first", "second")] == [400, 201]
            assert [spec["Name"] for spec in http.get("/api/v1/request-list").json()] == ["second"]
        assert server.terminate() == 0


def test_sighup_sets_the_level_of_the_log_that_the_file_has_now(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("log: {level: info}\n")
    arguments = ("job-runner", "--http=127.0.0.1:0", str(file))
    with running(*arguments, directory=tmp_path, environment=NO_DRAIN) as server:
        server.wait_for("listening")
        file.write_text("log: {level: debug}\n")
        reload_until(server, "log level set", to="debug")
        file.write_text("log: {level: loud}\n")
        reload_until(
            server, "not reloaded because of errors: the earlier version stays in use", what="log.level"
        )
        file.write_text("{}")
        reload_until(server, "log level set", to="info")
        assert server.terminate() == 0


def test_a_variable_overrides_the_level_that_the_file_has_now(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("log: {level: info}\n")
    environment = {**NO_DRAIN, "SPINCYCLE_LOG_LEVEL": "debug"}
    arguments = ("job-runner", "--http=127.0.0.1:0", str(file))
    with running(*arguments, directory=tmp_path, environment=environment) as server:
        server.wait_for("listening")
        file.write_text("log: {level: error}\n")
        reload_until(server, "log level set", to="debug")
        assert server.terminate() == 0
