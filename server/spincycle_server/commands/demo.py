"""`spincycle demo`: runs a server with the example specs in a second process, and `spinc` as a user would."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import FrameType
from typing import BinaryIO

import click
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from spincycle_grpc.channels import open_channel
from spincycle_grpc.errors import FailedPreconditionError, UnavailableError
from spincycle_server.commands.options import server_options
from spincycle_server.listening import Address

PACKAGE = Path(str(resources.files("spincycle_server")))
EXAMPLES = PACKAGE / "examples" / "specs"
LOG_FILE = Path("spincycle.log")
DATABASE_FILE = "spincycle.db"
REQUEST = ("rolling-restart", "service=web", 'hosts:=["web1", "web2", "web3", "web4", "web5"]')

START_LIMIT = 30.0
"""Seconds that the server may take to start."""

PAGE_LIMIT = 10.0
"""Seconds within which the server must answer with its page."""

STOP_LIMIT = 40.0
"""Seconds that the server may take to end. After that, it is killed."""


@click.command("demo")
@click.option("--once", is_flag=True, help="Exit when the request has ended.")
@server_options("http", "grpc", "db")
def demo_command(config: str | None, once: bool, http: str | None, grpc: str | None, db: str | None) -> None:
    """Serve the example specs and follow one request; then serve until Ctrl-C.

    The server stores requests in spincycle.db and writes its log to spincycle.log, both in the current
    directory. CONFIG is a YAML file of server options.

    Exit status: 0 if the request completed, 1 if it or the server failed, 2 for wrong usage.
    """
    http_address = Address.parse(http or "127.0.0.1:32308")
    grpc_address = Address.parse(grpc) if grpc else http_address.for_grpc()
    options = [f"--http={http_address}", f"--grpc={grpc_address}", f"--specs={EXAMPLES}"]
    options.append(f"--db={db or f'sqlite:///{Path.cwd() / DATABASE_FILE}'}")
    options += [str(Path(config).resolve())] if config else []
    with _server(options) as process:
        _wait_serving(process, str(grpc_address))
        click.echo(f"$ spinc start {' '.join(REQUEST[:2])} hosts:='[...]' --wait")
        spinc = [sys.executable, "-P", "-m", "spincycle_grpc.cli", f"--addr={grpc_address}"]
        status = subprocess.call([*spinc, "start", *REQUEST, "--wait"])  # noqa: S603 (this project's own command)
        if once or status != 0:
            sys.exit(status)
        click.echo(f"\nServing HTTP on {http_address} and gRPC on {grpc_address}. The log is in {LOG_FILE}.")
        click.echo(f"Try `{_spinc(grpc_address)}` in another terminal. Press Ctrl-C to stop the server.")
        if _has_page(http_address):
            click.echo(f"Open http://{http_address.reachable_here} in a browser.")
        sys.exit(process.wait())


def _has_page(address: Address) -> bool:
    """Asks the server for its web page. Without TLS, as the example request."""
    if address.is_unix:
        return False
    here = address.reachable_here
    connection = http.client.HTTPConnection(here.host, here.port, timeout=PAGE_LIMIT)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _spinc(address: Address) -> str:
    """Returns the command with which a user reaches the server from another terminal."""
    program = "spinc" if shutil.which("spinc") else str(Path(sys.executable).with_name("spinc"))
    return program if address == Address("127.0.0.1", 32318) else f"{program} --addr={address}"


@contextlib.contextmanager
def _server(options: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the server until the block ends. SIGTERM and Ctrl-C end the block."""
    with _open_log() as log:
        process = subprocess.Popen(  # noqa: S603 (this project's own command)
            # -P keeps the directory below out of sys.path, where its modules would hide others.
            [sys.executable, "-P", "-m", "spincycle_server", "server", *options],
            cwd=PACKAGE,  # The example specs name programs as examples/bin/....
            stdin=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches only this process, which then ends the server.
        )
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield process
    except KeyboardInterrupt:
        click.echo("\nStopping the server ...")
    finally:
        signal.signal(signal.SIGTERM, previous)
        process.terminate()
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _open_log() -> BinaryIO:
    try:
        return LOG_FILE.open("ab")
    except OSError as error:
        raise FailedPreconditionError(
            f"cannot write {LOG_FILE}: {error.strerror}: run the demo in a directory that you may write to",
            reason="LOG_NOT_WRITABLE",
        ) from error


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _wait_serving(process: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + START_LIMIT
    with open_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise UnavailableError(f"the server did not start: {_last_log_line()}", reason="SERVER_DOWN")
            with contextlib.suppress(grpc.RpcError):
                answer = health.Check(  # type: ignore[attr-defined]
                    health_pb2.HealthCheckRequest(), timeout=1.0
                )
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            time.sleep(0.1)
    raise UnavailableError(
        f"the server did not start within {START_LIMIT:g} seconds: see {LOG_FILE}", reason="SERVER_DOWN"
    )


def _last_log_line() -> str:
    lines = LOG_FILE.read_text(errors="replace").splitlines()
    return lines[-1].removeprefix("spincycle: ") if lines else f"see {LOG_FILE}"
