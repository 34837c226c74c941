"""Jobs that fork. Servers load `tests.forking_jobs:factory`."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from spincycle_grpc.jobs import Job, JobTypes, Return

FORK = multiprocessing.get_context("fork")
LEFT = 3600.0
"""Seconds for which children that a job leaves behind sleep."""


@dataclass
class Plain(Job):
    """Calls the function that its arg `how` names. The function's result is its stdout."""

    how: str = ""

    def create(self, job_args: dict[str, Any]) -> None:
        self.how = job_args["how"]

    def run(self, job_data: dict[str, Any]) -> Return:
        return Return(stdout=json.dumps(WAYS[self.how]()))


class Async(Plain):
    """Does the same in the event loop."""

    async def run(self, job_data: dict[str, Any]) -> Return:  # type: ignore[override]
        return Return(stdout=json.dumps(WAYS[self.how]()))


def pool() -> int:
    """Lets a pool of processes add numbers, and ends its processes with SIGTERM."""
    with FORK.Pool(3) as processes:
        return sum(processes.map(abs, range(100)))


def executor() -> int:
    """Lets an executor add numbers."""
    with ProcessPoolExecutor(2, mp_context=FORK) as processes:
        return sum(processes.map(abs, range(100)))


def terminated_process() -> int | None:
    """Returns the exit code of a process that is ended with SIGTERM."""
    process = FORK.Process(target=time.sleep, args=(LEFT,))
    process.start()
    process.terminate()
    process.join()
    return process.exitcode


def signalled(number: int) -> int:
    """Returns the exit code of a child that sends itself a signal."""
    if not (child := os.fork()):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            time.sleep(LEFT)
        os._exit(77)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def returning_child() -> int:
    """Returns the exit code of a child that returns from the job, as the job itself does."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return -1


def left_process() -> int | None:
    """Leaves a process behind for which Python waits when it exits."""
    process = FORK.Process(target=time.sleep, args=(LEFT,))
    process.start()
    return process.pid


def left_executor() -> list[int]:
    """Leaves an executor behind whose processes are busy."""
    processes = ProcessPoolExecutor(1, mp_context=FORK)
    processes.submit(time.sleep, LEFT)
    return list(processes._processes)


def left_fork() -> int:
    """Leaves a forked child behind that ignores SIGTERM."""
    if child := os.fork():
        return child
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(LEFT)
    os._exit(0)


def links() -> dict[int, str]:
    """Returns what the descriptors of this process are."""
    found = {}
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


@contextlib.contextmanager
def own_descriptors() -> Iterator[list[int]]:
    """Opens descriptors of many kinds that a job may share with its children."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = stack.enter_context(socket.create_connection(listener.getsockname()))
        accepted = stack.enter_context(listener.accept()[0])
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        pair = [stack.enter_context(one) for one in socket.socketpair()]
        file = stack.enter_context(tempfile.TemporaryFile())
        pipe = os.pipe()
        event = os.eventfd(0)
        for descriptor in (*pipe, event):
            stack.callback(os.close, descriptor)
        sockets = [one.fileno() for one in (listener, client, accepted, udp, *pair)]
        yield [*sockets, file.fileno(), *pipe, event]


def descriptors() -> dict[str, Any]:
    """Returns the descriptors of this process, those of a child, and which of them are the job's own."""
    with own_descriptors() as own:
        server = links()
        reader, writer = os.pipe()
        if not (child := os.fork()):
            os.write(writer, json.dumps(links()).encode())
            os._exit(0)
        os.close(writer)
        with open(reader, "rb") as answer:
            copied = json.loads(answer.read())
        os.waitpid(child, 0)
        return {"own": own, "server": server, "child": copied}


WAYS: dict[str, Callable[[], object]] = {
    "pool": pool,
    "executor": executor,
    "terminated-process": terminated_process,
    "sigterm": lambda: signalled(signal.SIGTERM),
    "sighup": lambda: signalled(signal.SIGHUP),
    "sigint": lambda: signalled(signal.SIGINT),
    "returning-child": returning_child,
    "left-process": left_process,
    "left-executor": left_executor,
    "left-fork": left_fork,
    "descriptors": descriptors,
}

factory = JobTypes({"plain": Plain, "async": Async})
