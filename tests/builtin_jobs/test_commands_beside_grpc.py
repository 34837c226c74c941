"""Commands start while threads of gRPC are busy, as in a Job Runner."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.limits import COMMAND

REPOSITORY = Path(__file__).parents[2]
PROGRAM = """
import click
from spincycle_server.__main__ import cli

cli.get_command(click.Context(cli), "job-runner")  # loads gRPC as a Job Runner does

import asyncio, collections, os
import grpc, uvloop
from spincycle_server.builtin_jobs import ShellCommand

ROUNDS = 100

async def call_without_end(call):
    while True:
        try:
            await call(b"")
        except grpc.aio.AioRpcError:
            pass

async def run_commands(ended):
    for _ in range(ROUNDS):
        command = ShellCommand(cmd="true")
        done = await command.run({})
        ended[done.exit, done.error] += 1

async def run_processes(ended):
    for _ in range(ROUNDS):
        process = await asyncio.create_subprocess_exec("true")
        ended[await process.wait(), ""] += 1

async def main():
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ended = collections.Counter()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        calls = [asyncio.create_task(call_without_end(channel.unary_unary("/no/method"))) for _ in range(4)]
        try:
            await asyncio.gather(*(run_commands(ended) for _ in range(8)), run_processes(ended))
        finally:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
    await server.stop(10)  # Calls that are under way end by themselves.
    print(dict(ended), "GRPC_ENABLE_FORK_SUPPORT" in os.environ)

uvloop.run(main())
"""


def test_no_command_dies_between_fork_and_exec() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=COMMAND,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("{(0, ''): 900} False\n", "")
