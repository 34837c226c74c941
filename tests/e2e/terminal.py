"""A shell on a pseudo-terminal, in which a test types what an operator types."""

from __future__ import annotations

import contextlib
import os
import re
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pexpect

from tests.limits import COMMAND

_PROMPT = "operator> "
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]")


class Terminal:
    """The shell. Its commands are those of the tested environment, for example `spinc`.

    Args:
        directory: The directory in which the shell starts.
        environment: Further environment variables.
    """

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("SPINC_", "XDG_"))}
        own.pop("NO_COLOR", None)
        path = f"{sysconfig.get_path('scripts')}:{own['PATH']}"
        self._shell: Any = pexpect.spawn(
            "bash",
            ["--noprofile", "--norc", "-i"],
            cwd=directory,
            env={**own, "HOME": str(directory), "PATH": path, "TERM": "xterm", "PS1": _PROMPT, **environment},
            encoding="utf-8",
            timeout=COMMAND,
            dimensions=(50, 160),
        )
        self._shell.expect_exact(_PROMPT)
        # Otherwise the shell writes escapes around what is typed.
        self.type("bind 'set enable-bracketed-paste off'")

    def type(self, line: str) -> str:
        """Types a line, waits for the next prompt, and returns what was shown, without colors."""
        self._shell.sendline(line)
        self._shell.expect_exact(_PROMPT)
        _, _, shown = _ESCAPES.sub("", self._shell.before).partition("\n")
        return shown.replace("\r\n", "\n")

    def status(self) -> int:
        """Returns the exit status of the last command."""
        return int(self.type("echo $?"))

    def close(self) -> None:
        """Ends the shell."""
        self._shell.close(force=True)


@contextlib.contextmanager
def open_terminal(directory: Path, **environment: str) -> Iterator[Terminal]:
    """Runs a shell, and ends it at the end."""
    terminal = Terminal(directory, environment)
    try:
        yield terminal
    finally:
        terminal.close()
