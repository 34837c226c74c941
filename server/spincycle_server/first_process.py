"""The first process of a container or of a PID namespace, which starts the server as its child.

The kernel makes it the parent of each process whose own parent has ended. It collects them when they end.
The server cannot do that itself: it would take the exit codes that jobs wait for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

_FORWARDED = {
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
}


def continue_in_child() -> None:
    """Returns in a child of this process if this is process 1, and at once otherwise.

    Call it before any thread starts.
    """
    if os.getpid() == 1:
        supervise()


def supervise() -> None:
    """Returns in a child of this process.

    This process forwards signals to the child, collects all processes that it inherits, and exits with the
    status of the child, or with 128 + n if signal n ended the child.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_FORWARDED, signal.SIGCHLD})
    sys.stdout.flush()
    sys.stderr.flush()
    if not (child := os.fork()):
        _take_terminal()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    while True:
        number = signal.sigwait({*_FORWARDED, signal.SIGCHLD})
        if number != signal.SIGCHLD:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)
        elif (status := _collect(child)) is not None:
            os._exit(status if status >= 0 else 128 - status)


def _take_terminal() -> None:
    """Moves this process to a group of its own, so that it receives Ctrl-C once and not twice."""
    foreground = False
    with contextlib.suppress(OSError):
        foreground = os.tcgetpgrp(0) == os.getpgrp()
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
        if foreground:
            ignored = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            try:
                os.tcsetpgrp(0, os.getpgrp())
            finally:
                signal.signal(signal.SIGTTOU, ignored)


def _collect(child: int) -> int | None:
    """Collects the processes that have ended. Returns the exit code of the child if it is one of them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while True:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                break
            if process == child:
                found = os.waitstatus_to_exitcode(status)
    return found
