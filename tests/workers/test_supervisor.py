"""The supervisor with small workers: what it does when they end, hang, or tell each other something."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.limits import COMMAND

START = """
import os, signal, sys
import structlog
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
from spincycle_server.workers import restarts
restarts.MAX_FAILURES, restarts.FIRST_PAUSE = 2, 0.01
from spincycle_server.workers.frames import FrameReader, Kind, encode
from spincycle_server.workers.supervisor import Supervision, supervise

def say(text):
    os.write(1, text.encode() + b"\\n")

place = supervise(
    Supervision(
        workers=2, stop_limit=STOP_LIMIT, watchdog=None, on_listening=lambda: say("listening"),
        on_stopping=lambda: say("stopping"), on_alive=lambda: None, on_hangup=lambda: False,
        add_counts=lambda before, newest: newest,
    )
)

def send(kind, data=b""):
    place.connection.sendall(encode(kind, data))

def on_sigterm(*_):
    say(f"{place.number} ends")
    os._exit(0)

signal.signal(signal.SIGTERM, on_sigterm)
"""


def supervised(program: str, stop_limit: float = 60.0) -> subprocess.Popen[str]:
    """Starts a supervisor with two workers that run a program."""
    return subprocess.Popen(
        [sys.executable, "-c", START.replace("STOP_LIMIT", str(stop_limit)) + program],
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> list[str]:
    """Returns what a supervisor and its workers say until they end."""
    output, _ = process.communicate(timeout=COMMAND)
    return output.splitlines()


@pytest.mark.parametrize(("end", "status"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 1), ("", 1)])
def test_the_status_is_that_of_a_worker_that_cannot_start(end: str, status: int) -> None:
    with supervised(f"say(str(place.number))\n{end}\n") as process:
        assert said(process) == ["1", "stopping"]  # The second worker was never started.
        assert process.returncode == status


def test_a_worker_that_ends_again_and_again_ends_them_all() -> None:
    program = """
send(Kind.LISTENING)
if place.number == 2:
    say("starts")
    sys.exit(7)
while True:
    signal.pause()
"""
    with supervised(program) as process:
        lines = said(process)
        assert lines.count("starts") == 3
        assert lines.count("listening") == 1
        assert lines[-2:] == ["stopping", "1 ends"]
        assert process.returncode == 1


def test_a_worker_that_does_not_stop_is_killed() -> None:
    program = """
if place.number == 1:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
send(Kind.LISTENING)
while True:
    signal.pause()
"""
    with supervised(program, stop_limit=0.2) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "listening\n":
            pass
        process.send_signal(signal.SIGTERM)
        assert said(process)[0] == "stopping"
        assert process.returncode == 1


def test_news_of_a_worker_reach_the_others_alone() -> None:
    program = """
send(Kind.LISTENING)
if place.number == 2:
    for number in range(3):
        send(Kind.TELL, b"news %d" % number)
frames = FrameReader()
heard = 0
while data := place.connection.recv(100):
    for kind, text in frames.feed(data):
        heard += 1
        say(f"{place.number} hears {kind.name} {text.decode()}")
    if heard == 3:
        os.kill(os.getppid(), signal.SIGTERM)
"""
    with supervised(program) as process:
        lines = said(process)
        assert [line for line in lines if "hears" in line] == [f"1 hears TOLD news {one}" for one in range(3)]
        assert process.returncode == 0
