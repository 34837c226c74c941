"""`spincycle demo`: what `make run` shows. A server in a process of its own, and `spinc` as a user has it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import click
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from spincycle_grpc.channels import open_channel
from spincycle_grpc.errors import UnavailableError
from spincycle_server.commands.options import server_options
from spincycle_server.listening import Address

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples" / "specs"
LOG_FILE = Path("spincycle.log")
DATABASE_FILE = "spincycle.db"
REQUEST = ("rolling-restart", "service=web", 'hosts:=["web1", "web2", "web3", "web4", "web5"]')
START_LIMIT = 30.0
STOP_LIMIT = 40.0


@click.command("demo")
@click.option("--once", is_flag=True, help="End when the request has ended.")
@server_options("http", "grpc", "db")
def demo_command(config: str | None, once: bool, http: str | None, grpc: str | None, db: str | None) -> None:
    """Serve the example specs, run a request and show it; then go on serving until Ctrl-C.

    CONFIG is a YAML file with options of the server.
    """
    http_address = Address.parse(http or "127.0.0.1:32308")
    grpc_address = Address.parse(grpc) if grpc else http_address.for_grpc()
    options = [f"--http={http_address}", f"--grpc={grpc_address}", f"--specs={EXAMPLES}"]
    options.append(f"--db={db or f'sqlite:///{Path.cwd() / DATABASE_FILE}'}")
    options += [str(Path(config).resolve())] if config else []
    with _server(options) as process:
        _wait_serving(process, str(grpc_address))
        click.echo(f"$ spinc start {' '.join(REQUEST[:2])} hosts:='[...]' --wait")
        status = subprocess.call(  # noqa: S603 (this program itself)
            [
                sys.executable,
                "-m",
                "spincycle_grpc.cli",
                f"--addr={grpc_address}",
                "start",
                *REQUEST,
                "--wait",
            ]
        )
        if once or status != 0:
            sys.exit(status)
        click.echo(f"\nServing HTTP on {http_address} and gRPC on {grpc_address}; logs go to {LOG_FILE}.")
        click.echo("Try `.venv/bin/spinc` in another terminal. Ctrl-C ends the server.")
        sys.exit(process.wait())


@contextlib.contextmanager
def _server(options: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the server until the block ends; a signal to end ends the block."""
    with LOG_FILE.open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 (this program itself)
            [sys.executable, "-m", "spincycle_server", "server", *options],
            cwd=ROOT,  # The example specs name programs by paths from here.
            stdin=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for this process, which then ends the server.
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


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _wait_serving(process: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + START_LIMIT
    with open_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise UnavailableError(f"the server did not start: {_last_words()}", reason="SERVER_DOWN")
            with contextlib.suppress(grpc.RpcError):
                answer = health.Check(  # type: ignore[attr-defined]
                    health_pb2.HealthCheckRequest(), timeout=1.0
                )
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            time.sleep(0.1)
    raise UnavailableError(
        f"the server did not start in {START_LIMIT:g} s: see {LOG_FILE}", reason="SERVER_DOWN"
    )


def _last_words() -> str:
    lines = LOG_FILE.read_text(errors="replace").splitlines()
    return lines[-1].removeprefix("spincycle: ") if lines else f"see {LOG_FILE}"
