"""Ctrl-C while `spinc` starts and ends: it exits with 130, and never prints a traceback."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import NoReturn

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


def _exit(*_: object) -> NoReturn:
    os._exit(_INTERRUPTED)
