"""Ctrl-C while `spinc` starts and ends: it exits with 130, and never prints a traceback."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from typing import NoReturn, TextIO

_INTERRUPTED = 130


def exit_on_interrupt() -> None:
    """Makes Ctrl-C exit the process at once. Changes nothing if the caller of `spinc` ignores Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)


@contextlib.contextmanager
def raising_on_interrupt() -> Iterator[None]:
    """Makes Ctrl-C raise KeyboardInterrupt, which commands handle, instead of exiting at once."""
    if signal.getsignal(signal.SIGINT) is not _exit:
        yield
        return
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, _exit)
    except KeyboardInterrupt:
        _exit()


def wait_for_line(terminal: TextIO) -> None:
    """Waits until a line can be read from a terminal.

    A signal that arrives just before a blocking read does not interrupt it, so Ctrl-C would have no effect.
    It ends this wait, because its handler also writes to a pipe.

    Raises:
        KeyboardInterrupt: The user pressed Ctrl-C.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    previous = signal.set_wakeup_fd(writing)
    try:
        select.select([terminal.fileno(), reading], [], [])
    finally:
        signal.set_wakeup_fd(previous)
        os.close(reading)
        os.close(writing)


def _exit(*_: object) -> NoReturn:
    os._exit(_INTERRUPTED)
