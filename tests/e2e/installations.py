"""Installations of real servers, which tests kill and start again."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from spincycle_grpc import Client
from spincycle_grpc.state import State
from spincycle_grpc.v1.request_pb2 import Request
from tests.e2e.processes import DEFAULT_DATABASE, ServerProcess, running
from tests.e2e.waiting import eventually
from tests.host_jobs import HOSTS
from tests.journal_jobs import JOURNAL, read_journal
from tests.limits import ANSWER, PROCESS_END
from tests.ports import free_port

QUICK = {"SPINCYCLE_RESUME_INTERVAL": "100ms", "SPINCYCLE_JOB_RUNNER_LEASE": "2s"}
"""Variables with which servers soon find a request that waits, and a runner that is gone."""


class Installation:
    """Request Managers on one database, and Job Runners. Each can be killed and started again.

    Args:
        directory: The directory of the servers. Its folder `specs` gets the request specs.
        stack: Ends the servers and closes the clients.
        specs: The text of the request specs.
        database: The URL of the database. Default: a file in the directory.
        managers: How many Request Managers there are.
        environment: Variables of all servers.

    Attributes:
        ports: The HTTP port of each Request Manager, which it has again when it is started again.
        managers: The process of each Request Manager that was started.
        environment: The variables. A change counts for servers that are started later.
        options: Options of each Request Manager, such as its configuration file.
        token: The token that the clients send; None if they send none.
        program: The module that the servers run, and arguments that come first.
    """

    def __init__(
        self,
        directory: Path,
        stack: contextlib.ExitStack,
        specs: str,
        *,
        database: str = "",
        managers: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.stack = stack
        self.database = database or f"sqlite:///{directory / DEFAULT_DATABASE}"
        self.ports = [free_port() for _ in range(managers)]
        self.managers: dict[int, ServerProcess] = {}
        self.environment = {"SPINCYCLE_SPECS_DIR": str(directory / "specs"), **(environment or {})}
        self.options: tuple[str, ...] = ()
        self.token: str | None = None
        self.program: tuple[str, ...] = ("spincycle_server",)
        self._clients: dict[tuple[int, str | None], Client] = {}
        (directory / "specs").mkdir()
        self.write_specs(specs)

    def write_specs(self, specs: str) -> None:
        (self.directory / "specs" / "specs.yaml").write_text(specs)

    def configure(self, config: str) -> None:
        """Writes the configuration file of Request Managers that are started later."""
        (self.directory / "config.yaml").write_text(config)
        self.options = ("config.yaml",)

    def use_cluster_key(self) -> None:
        """Gives the servers a key, which they need if there are users."""
        key = self.directory / "cluster.key"
        key.write_text("k" * 40)
        self.environment["SPINCYCLE_CLUSTER_KEY_FILE"] = str(key)

    def start(
        self, *arguments: str, point: str = "", environment: Mapping[str, str] | None = None
    ) -> ServerProcess:
        """Starts a `spincycle` command.

        Args:
            arguments: The command and its options.
            point: The point of `dying_server` at which it dies; "" for none.
            environment: More variables for this process.
        """
        program = ("tests.e2e.dying_server", point) if point else self.program
        variables = {**self.environment, **(environment or {})}
        return self.stack.enter_context(
            running(*arguments, directory=self.directory, environment=variables, program=program)
        )

    def start_manager(
        self, number: int = 0, *, point: str = "", environment: Mapping[str, str] | None = None
    ) -> ServerProcess:
        """Starts a Request Manager. Returns when it listens. The arguments are those of `start`."""
        where = f"--http=127.0.0.1:{self.ports[number]}", f"--db={self.database}"
        manager = self.start("request-manager", *self.options, *where, point=point, environment=environment)
        manager.address("request-manager", "http")
        self.managers[number] = manager
        return manager

    @property
    def manager(self) -> ServerProcess:
        """The first Request Manager."""
        return self.managers[0]

    def start_runner(
        self,
        *,
        port: int = 0,
        managers: int | None = None,
        environment: Mapping[str, str] | None = None,
        must_report: bool = True,
    ) -> ServerProcess:
        """Starts a Job Runner.

        Args:
            port: Its HTTP port; 0 for any.
            managers: How many Request Managers it knows. Default: all.
            environment: More variables for this runner.
            must_report: Return when it has reported to a Request Manager.
        """
        known = ",".join(map(self.grpc, range(managers or len(self.ports))))
        runner = self.start(
            "job-runner", f"--http=127.0.0.1:{port}", f"--rm={known}", environment=environment
        )
        if must_report:
            runner.wait_for("reporting", PROCESS_END)
        return runner

    def url(self, number: int = 0) -> str:
        """Returns the URL of a Request Manager."""
        return f"http://127.0.0.1:{self.ports[number]}"

    def grpc(self, number: int = 0) -> str:
        """Returns the gRPC address of a Request Manager."""
        return f"127.0.0.1:{self.ports[number] + 10}"

    def http(self, number: int = 0) -> httpx.Client:
        """Returns a new HTTP client of a Request Manager."""
        return self.stack.enter_context(httpx.Client(base_url=self.url(number), timeout=ANSWER))

    def client_of(self, number: int, token: str | None = None) -> Client:
        """Returns the client of a Request Manager. It has the token of the installation, or another one."""
        key = number, token or self.token
        if key not in self._clients:
            self._clients[key] = self.stack.enter_context(Client(self.grpc(number), token=key[1]))
        return self._clients[key]

    @property
    def client(self) -> Client:
        """The client of the first Request Manager."""
        return self.client_of(0)

    def wait_state(self, request_id: str, state: State) -> Request:
        """Waits until a request is in a state, and returns the request."""

        def look() -> Request | None:
            found = self.client.get(request_id)
            return found if State(found.state) is state else None

        request: Request = eventually(look)
        return request

    def path(self, name: str) -> str:
        """Returns the path of a file, for example of the gate of a job."""
        return str(self.directory / name)

    def open(self, name: str) -> str:
        """Opens the gate of jobs: creates the file that they wait for. Returns its path."""
        (self.directory / name).touch()
        return self.path(name)

    def close(self, name: str) -> None:
        """Closes a gate."""
        (self.directory / name).unlink()


class JournalInstallation(Installation):
    """An installation whose jobs keep a journal. The arguments are those of `Installation`."""

    def __init__(
        self,
        directory: Path,
        stack: contextlib.ExitStack,
        specs: str,
        *,
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        journal = {JOURNAL: str(directory / "journal"), "SPINCYCLE_JOBS": "tests.journal_jobs:factory"}
        variables = {**QUICK, **journal, **(environment or {})}
        super().__init__(directory, stack, specs, environment=variables, **options)

    def journal(self, request_id: str = "") -> list[dict[str, Any]]:
        """Returns the lines of a request, or of all requests."""
        return read_journal(self.directory / "journal", request_id)

    def events(self, request_id: str, event: str = "start") -> Counter[str]:
        """Returns how often each job of a request has started, or ended in a state."""
        return Counter(line["name"] for line in self.journal(request_id) if line["event"] == event)

    def order(self, request_id: str) -> list[str]:
        """Returns the jobs that have started, in that order."""
        return [line["name"] for line in self.journal(request_id) if line["event"] == "start"]


class HostsInstallation(Installation):
    """A Request Manager and a Job Runner on fixed ports, which both run, and whose jobs work on hosts.

    Args:
        directory: The directory of the servers. The jobs write there what they did with the hosts.
        stack: Ends the servers.
        specs: The text of the request specs.
        config: The configuration of the Request Manager, if there are users.
    """

    def __init__(self, directory: Path, stack: contextlib.ExitStack, specs: str, config: str = "") -> None:
        jobs = {HOSTS: str(directory), "SPINCYCLE_JOBS": "tests.host_jobs:factory"}
        super().__init__(directory, stack, specs, environment=jobs)
        if config:
            self.use_cluster_key()
            self.configure(config)
        self._runner_port = free_port()
        self.start_all()

    def start_all(self) -> None:
        self.start_manager()
        self.runner = self.start_runner(port=self._runner_port)

    def kill_all(self) -> None:
        for server in (self.manager, self.runner):
            server.kill()
