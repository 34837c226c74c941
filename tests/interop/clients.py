"""The example clients: how they are built and run, which their READMEs say."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from tests.databases import find_binary
from tests.e2e.processes import REPOSITORY
from tests.interop.trees import TREES
from tests.limits import COMMAND
from tests.public_authorities import with_those_of_the_machine

EXAMPLE = "run nap ms=1500"
"""What the last command of each README does."""

SHORT = ("go", "typescript")
"""The languages of a short run."""


@dataclass(frozen=True)
class Language:
    """A directory of examples/clients.

    Attributes:
        name: The name of the directory.
        program: The program that the machine must have.
        is_generated: The client is built from the contracts, so it is also built from those of a server.
        address: The environment variable that names the server, and the transport that it names.
    """

    name: str
    program: str
    is_generated: bool = True
    address: tuple[str, str] = ("SPINC_ADDR", "grpc")

    def commands(self) -> list[str]:
        """Returns the commands of the README."""
        page = (REPOSITORY / "examples" / "clients" / self.name / "README.md").read_text()
        [block] = re.findall(r"^```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
        return str(block).splitlines()

    def build(self, tree: Path) -> BuiltClient:
        """Runs all commands of the README but the last one, in a tree with contracts.

        The package `spincycle_grpc` is not installed again: tests run with the one of the clone.
        """
        find_binary(self.program)
        directory = tree / "examples" / "clients" / self.name
        *commands, last = self.commands()
        for command in commands:
            if not command.startswith("pip install"):
                run("bash", "-c", command, directory=directory)
        assert last.endswith(EXAMPLE)
        return BuiltClient(self, directory, shlex.split(last.removesuffix(EXAMPLE)))


LANGUAGES = {
    language.name: language
    for language in (
        Language("go", "go"),
        Language("java", "mvn"),
        Language("python", sys.executable, is_generated=False),
        Language("rust", "cargo"),
        Language("shell", "jq", is_generated=False, address=("SPINC_URL", "http")),
        Language("typescript", "npm"),
    )
}


def environment() -> dict[str, str]:
    """Returns the environment of builds and clients: without options of servers, and with buf in the path."""
    everything = with_those_of_the_machine(os.environ)
    own = {key: value for key, value in everything.items() if not key.startswith(("SPINC", "PYTHON"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**own, "PATH": path, "CARGO_TARGET_DIR": str(TREES / "cargo"), "npm_config_fund": "false"}


def run(*command: str, directory: Path) -> str:
    """Runs a command that must succeed, and returns its output."""
    variables = environment()
    done = subprocess.run(
        command, cwd=directory, env=variables, capture_output=True, text=True, timeout=COMMAND, check=False
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class BuiltClient:
    """A client that can run."""

    language: Language
    directory: Path
    command: list[str]

    @contextlib.contextmanager
    def start(self, address: str, *arguments: str, **variables: str) -> Iterator[RunningClient]:
        """Starts the client, and kills it at the end if it still runs.

        Args:
            address: host:port of the Request Manager, for the transport of the client.
            arguments: The command, and its arguments.
            variables: Further environment variables.
        """
        variable, transport = self.language.address
        if transport == "http":
            address = f"{'https' if 'SPINC_CA' in variables else 'http'}://{address}"
        with (
            tempfile.TemporaryFile("w+") as errors,
            subprocess.Popen(
                [*self.command, *arguments],
                cwd=self.directory,
                env={**environment(), variable: address, **variables},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            ) as process,
        ):
            try:
                yield RunningClient(process, errors)
            finally:
                process.kill()

    def run(self, address: str, *arguments: str, **variables: str) -> RunningClient:
        """Runs the client to its end."""
        with self.start(address, *arguments, **variables) as client:
            client.wait()
        return client


@dataclass
class RunningClient:
    """The process of a client, and what it has printed.

    Attributes:
        lines: The lines that were read so far.
        errors: The error output, after `wait`.
    """

    process: subprocess.Popen[str]
    error_file: TextIO
    lines: list[str] = field(default_factory=list)
    errors: str = ""

    def read_until(self, start: str) -> str:
        """Reads lines up to the next one that starts with a text, and returns that line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith(start):
                return self.lines[-1]
        self.wait()
        raise AssertionError(f"there is no line {start!r}:\n{self.output()}")

    def wait(self) -> int:
        """Waits until the client exits, and returns its exit status."""
        assert self.process.stdout is not None
        limit = threading.Timer(COMMAND, self.process.kill)
        limit.start()
        try:
            # `communicate` would lose the lines that are in the buffer of the pipe's reader already.
            self.lines += [line.rstrip("\n") for line in self.process.stdout]
            return self.process.wait()
        finally:
            limit.cancel()
            self.error_file.seek(0)
            self.errors = self.error_file.read()

    @property
    def status(self) -> int:
        """The exit status of a client that has ended."""
        return self.process.returncode

    def output(self) -> str:
        """Returns everything that the client has printed, for the message of a failed test."""
        return "\n".join([*self.lines, self.errors])
