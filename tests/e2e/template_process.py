"""A process that has loaded the modules of the servers. It forks for each server that a test starts.

Loading takes most of the CPU time of a start. A child differs in one thing from a process that Python has
started: the modules of the servers and of their libraries are in its memory. The child loads the modules of
jobs, and starts all threads, gRPC's core and the event loop.

Usage: python -m tests.e2e.template_process DESCRIPTOR

The descriptor is a socket of the kind SOCK_SEQPACKET. A message is a `Start` as JSON. With it come two
descriptors: the standard error of the new process, and a socket that gets two messages. These are the id of
the process and, once it has ended, its exit status.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from dataclasses import dataclass
from typing import Any

from spincycle_server.garbage_collection import collect_not_yet
from spincycle_server.grpc_settings import import_grpc
from spincycle_server.log_library import load_structlog

MAX_MESSAGE = 100_000
"""Bytes of a message."""

PRELOADED = (
    "spincycle_server.app.job_runner",
    "spincycle_server.app.oidc",
    "spincycle_server.app.request_manager",
    "spincycle_server.commands.job_runner",
    "spincycle_server.commands.request_manager",
    "spincycle_server.commands.server",
    "spincycle_server.database.mysql_dialect",
    "sqlalchemy.dialects.mysql.pymysql",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
)
"""What is loaded once. Not `spincycle_server.__main__`, because a child runs it."""


@dataclass(frozen=True)
class Start:
    """What a new process runs.

    Attributes:
        module: The module, as after `python -m`.
        arguments: Its arguments.
        directory: The working directory.
        environment: All variables of the environment.
    """

    module: str
    arguments: list[str]
    directory: str
    environment: dict[str, str]


def load() -> None:
    """Loads the modules, and starts no thread."""
    collect_not_yet()
    import_grpc()
    load_structlog()
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # Otherwise a child copies each page when it looks for garbage.
    threads = len(os.listdir("/proc/self/task"))
    assert threads == 1, f"{threads} threads: a child would have only one of them"


class Template:
    """Forks, and reports how its children end.

    Args:
        requests: The socket from which it reads what to run.
    """

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._selector = selectors.DefaultSelector()
        self._selector.register(requests, selectors.EVENT_READ)
        self._children: dict[int, tuple[int, socket.socket]] = {}

    def serve(self) -> Start | None:
        """Returns in each child, with what it runs. Returns None in this process when it is not needed."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._requests:
                    message, descriptors, _, _ = socket.recv_fds(self._requests, MAX_MESSAGE, 2)
                    if not message:
                        return None
                    if not self._fork(*descriptors):
                        return Start(**json.loads(message))
                else:
                    self._report_end(key.fd)

    def _fork(self, log: int, status: int) -> int:
        """Returns the process id of the child, and 0 in the child."""
        child = os.fork()
        if not child:
            os.dup2(log, 2)
            os.close(log)
            os.close(status)
            self._let_go()
            return 0
        os.close(log)
        told = socket.socket(fileno=status)
        told.send(str(child).encode())
        watched = os.pidfd_open(child)
        self._children[watched] = child, told
        self._selector.register(watched, selectors.EVENT_READ)
        return child

    def _report_end(self, watched: int) -> None:
        child, told = self._children.pop(watched)
        self._selector.unregister(watched)
        os.close(watched)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with told, contextlib.suppress(OSError):  # The test may not have waited for the process.
            told.send(str(code).encode())

    def _let_go(self) -> None:
        """Closes what the child has inherited."""
        self._selector.close()
        self._requests.close()
        for watched, (_, told) in self._children.items():
            os.close(watched)
            told.close()


def become(start: Start) -> None:
    """Makes this process what Python makes of `python -m`, before it runs the module."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(start.environment)
    os.chdir(start.directory)
    sys.path[0] = start.directory
    sys.argv = [start.module, *start.arguments]
    job_ids: Any = importlib.import_module("spincycle_server.graph.job_ids")
    job_ids.reseed()
    gc.enable()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which then close the socket.
    load()
    start = Template(socket.socket(fileno=int(sys.argv[1]))).serve()
    if start is not None:
        become(start)
        runpy.run_module(start.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
