"""What forked processes inherit. `tests/e2e/test_forking_jobs.py` tests the same with servers."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.limits import COMMAND

SETUP = """
import asyncio, os, signal, socket, sys
from spincycle_server import forked_children
from spincycle_server.listening import Address

forked_children.install()

def child(look):
    if not (child := os.fork()):
        print(look(), flush=True)
        os._exit(0)
    os.waitpid(child, 0)

def is_null(number):
    return os.path.samestat(os.fstat(number), os.stat(os.devnull))
"""


def printed(program: str, directory: Path) -> list[str]:
    """Returns the lines that a program prints in a process of its own."""
    command = [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", "-c", SETUP + program]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=COMMAND, check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_child_loses_unix_sockets_of_the_server(tmp_path: Path) -> None:
    program = """
server, own = [socket.socket(socket.AF_UNIX) for _ in range(2)]
for one, path in ((server, "server.sock"), (own, "own.sock")):
    one.bind(path)
    one.listen()
forked_children.add_address(Address.parse("unix:server.sock"))
client = socket.socket(socket.AF_UNIX)
client.connect("server.sock")
accepted = server.accept()[0]
child(lambda: [is_null(one.fileno()) for one in (server, client, accepted, own)])
child(lambda: os.get_inheritable(server.fileno()))
"""
    assert printed(program, tmp_path) == ["[True, True, True, False]", "False"]


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal", "-lock"])
def test_a_child_loses_the_files_of_an_sqlite_database(suffix: str, tmp_path: Path) -> None:
    program = f"""
forked_children.add_sqlite_file("x.db")
server, own = open("x.db{suffix}", "w"), open("y.db{suffix}", "w")
child(lambda: [is_null(server.fileno()), is_null(own.fileno())])
"""
    assert printed(program, tmp_path) == ["[True, False]"]


def test_a_child_keeps_a_descriptor_whose_number_the_server_used_before(tmp_path: Path) -> None:
    program = """
server = open("server", "w")
number = server.fileno()
forked_children.add_descriptor(number)
child(lambda: is_null(number))
server.close()
own = open("own", "w")
assert own.fileno() == number
child(lambda: is_null(number))
"""
    assert printed(program, tmp_path) == ["True", "False"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_child_has_the_default_handler_of_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    program = f"""
async def main():
    asyncio.get_running_loop().add_signal_handler({int(number)}, print, "signal in the server")
    child(lambda: signal.getsignal({int(number)}) in (signal.SIG_DFL, signal.default_int_handler))
    child(lambda: signal.set_wakeup_fd(-1))
    child(lambda: {int(number)} in signal.pthread_sigmask(signal.SIG_BLOCK, []))
    print({int(number)} in signal.pthread_sigmask(signal.SIG_BLOCK, []))

asyncio.run(main())
"""
    assert printed(program, tmp_path) == ["True", "-1", "False", "False"]


def test_a_child_ignores_the_signal_that_nohup_ignores(tmp_path: Path) -> None:
    program = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
child(lambda: signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)
"""
    assert printed(program, tmp_path) == ["True"]


def test_a_task_that_executes_a_program_pays_for_no_descriptors(tmp_path: Path) -> None:
    program = """
server = open("server", "w")
forked_children.add_descriptor(server.fileno())

async def execute():
    forked_children.announce_exec()
    child(lambda: is_null(server.fileno()))

async def main():
    await asyncio.create_task(execute())
    child(lambda: is_null(server.fileno()))

asyncio.run(main())
"""
    assert printed(program, tmp_path) == ["False", "True"]


def test_a_child_loses_the_files_of_the_server_although_no_descriptor_is_left(tmp_path: Path) -> None:
    program = """
import resource
forked_children.add_sqlite_file("x.db")
server, own = open("x.db", "w"), open("y.db", "w")
resource.setrlimit(resource.RLIMIT_NOFILE, (own.fileno() + 1, own.fileno() + 1))

def is_open(file):
    try:
        return not is_null(file.fileno())
    except OSError:
        return False

forked_children.add_open_descriptors(anonymous=True)
child(lambda: [is_open(one) for one in (server, own)])
"""
    assert printed(program, tmp_path) == ["[False, True]"]
