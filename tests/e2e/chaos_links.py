"""Connections between servers that lose what goes in one direction, as in a one-way partition."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from tests.e2e.link_process import Direction
from tests.limits import PROCESS_END


@dataclass(frozen=True)
class Link:
    """Forwards the connections to one address to another address.

    Attributes:
        number: Its place among all links, from 0.
        name: For the history of a test.
        listen: Where it listens: host and port.
    """

    number: int
    name: str
    listen: tuple[str, int]


class Links:
    """All links of a system, in a process of their own. Use it as a context manager, from any thread.

    The test keeps its own process busy. Links in that process delayed the servers' reports until leases
    lapsed again and again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str]
        self.links: list[Link] = []

    def __enter__(self) -> Links:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.link_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(PROCESS_END)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def add(self, name: str, port: int, target: tuple[str, int]) -> Link:
        """Starts a link that listens at a port of 127.0.0.2; 0 chooses one."""
        host, chosen = self._tell("add", port, *target)
        self.links.append(Link(len(self.links), name, (host, chosen)))
        return self.links[-1]

    @contextlib.contextmanager
    def cut(self, link: Link, direction: Direction) -> Iterator[None]:
        """Cuts one direction of a link for the length of the block."""
        self._tell("flow", link.number, direction.value, False)
        try:
            yield
        finally:
            self._tell("flow", link.number, direction.value, True)

    def _tell(self, *command: object) -> Any:
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        assert answer, "the process of the links has ended"
        return json.loads(answer)
