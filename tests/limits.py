"""Time limits, in seconds, that only keep a test from waiting forever.

A test fails when it reaches one of these limits, so each limit is at least twenty times what a fast machine
needs. A time that is itself under test (a lease, a server's timeout, a deadline) belongs in its test instead.
`timeout` in pyproject.toml ends a whole test and exceeds all of these limits.
"""

from __future__ import annotations

STEP = 120.0
"""One step within a process: a coroutine, a callback, or a thread that another one waits for."""

ANSWER = 120.0
"""The answer to one call over HTTP or gRPC, or to one database query."""

COMMAND = 900.0
"""A command that starts, does its work, and exits, such as `spinc`, `spincycle lint`, or a fuzzer."""

PROCESS_START = 300.0
"""The start of a server or a database, until it answers."""

PROCESS_END = 300.0
"""The exit of a process after a signal."""

LOG_LINE = 300.0
"""A log line that a running server writes as soon as something happens, such as the end of a lease."""

REQUEST_END = 600.0
"""A request that runs to its end, or any other state that a test polls for."""
