"""Job factories: found by name and by entry point, combined, and asked for job types."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from spincycle_grpc.jobs import Job, JobId, JobTypes, Return, UnknownJobTypeError
from spincycle_server import job_factories
from spincycle_server.builtin_jobs import Noop, ShellCommand
from spincycle_server.job_factories import (
    JobFactoryNotFoundError,
    combine,
    find_factory,
    installed_factories,
    knows_job_type,
    load_factory,
)
from tests.limits import COMMAND

FACTORY = """
from spincycle_grpc.jobs import Job, JobTypes, Return


class Drain(Job):
    def run(self, job_data):
        return Return()


factory = JobTypes({"drain": Drain})
number = 5
"""

WriteModule = Callable[[str, str], None]


class Task(Job):
    def run(self, job_data: dict[str, Any]) -> Return:
        return Return()


def job_id(job_type: str) -> JobId:
    return JobId(job_type, "n", "aaaa", "r")


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WriteModule]:
    """Returns a function that writes a module into the current directory, which only this test uses."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write(name: str, text: str) -> None:
        file = tmp_path / (name.replace(".", "/") + ".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


class TestLoadFactory:
    def test_finds_a_module_in_the_current_directory(self, write_module: WriteModule) -> None:
        write_module("my_jobs", FACTORY)
        assert type(load_factory("my_jobs:factory")(job_id("drain"))).__name__ == "Drain"

    def test_finds_a_module_in_a_package_and_a_nested_attribute(self, write_module: WriteModule) -> None:
        write_module("infra.jobs", FACTORY + "\nclass All:\n    factory = factory\n")
        assert type(load_factory("infra.jobs:All.factory")(job_id("drain"))).__name__ == "Drain"

    def test_prefers_an_installed_module(self, write_module: WriteModule) -> None:
        write_module("json", "raise RuntimeError('this is not the standard library')")
        with pytest.raises(JobFactoryNotFoundError, match="module json has no attribute factory"):
            load_factory("json:factory")

    def test_finds_an_installed_module_from_another_directory(self, tmp_path: Path) -> None:
        code = (
            "from spincycle_server.job_factories import load_factory; "
            "load_factory('spincycle_server.builtin_jobs:builtin_factory')"
        )
        root = Path(__file__).parent.parent
        environment = {"PYTHONPATH": str(root)}
        subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, timeout=COMMAND
        )

    @pytest.mark.parametrize(
        "name", ["", "my_jobs", "my_jobs:", ":factory", "my-jobs:factory", "a:b:c", "a b:c"]
    )
    def test_rejects_a_name_of_another_form(self, name: str) -> None:
        with pytest.raises(JobFactoryNotFoundError, match="must have the form module:attribute"):
            load_factory(name)

    @pytest.mark.parametrize(
        ("module", "name", "message"),
        [
            ("", "nowhere:factory", "module nowhere is neither installed nor in /"),
            ("", "nowhere.at_all:factory", "module nowhere.at_all is neither installed nor in /"),
            (
                FACTORY,
                "my_jobs:nothing",
                "job factory my_jobs:nothing: module my_jobs has no attribute nothing",
            ),
            (FACTORY, "my_jobs:number", "must be a function of a JobId, or JobTypes"),
            (FACTORY, "my_jobs:Drain", "must be a function of a JobId, or JobTypes"),
            (
                "\nimport no_such_library",
                "my_jobs:factory",
                "job factory my_jobs:factory cannot be imported: ModuleNotFoundError: "
                r"No module named 'no_such_library' \(my_jobs.py, line 2\)$",
            ),
            (
                "def connect():\n    raise OSError('no route\\nto host')\nconnect()",
                "my_jobs:factory",
                r"cannot be imported: OSError: no route \(my_jobs.py, line 2\)$",
            ),
            (
                "raise ValueError",
                "my_jobs:factory",
                r"cannot be imported: ValueError \(my_jobs.py, line 1\)$",
            ),
            ("def f(:", "my_jobs:factory", r"cannot be imported: SyntaxError: .*\(my_jobs.py, line 1\)$"),
        ],
    )
    def test_explains_a_failure_in_one_sentence(
        self, write_module: WriteModule, module: str, name: str, message: str
    ) -> None:
        write_module("my_jobs", module)
        with pytest.raises(JobFactoryNotFoundError, match=message) as caught:
            load_factory(name)
        assert "\n" not in str(caught.value)
        assert caught.value.reason == "JOB_FACTORY_NOT_FOUND"


class TestInstalledFactories:
    def install(self, directory: Path, entries: str) -> None:
        """Creates the metadata of an installed package with these entry points."""
        metadata = directory / "acme_jobs-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-jobs\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[spincycle.jobs]\n{entries}\n")
        sys.path.append(str(directory))

    def test_finds_an_entry_point(self, write_module: WriteModule, tmp_path: Path) -> None:
        write_module("acme_jobs", FACTORY)
        self.install(tmp_path, "acme = acme_jobs:factory")
        (factory,) = installed_factories()
        assert type(factory(job_id("drain"))).__name__ == "Drain"

    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            ("acme = acme_jobs:nothing", "cannot be imported: AttributeError"),
            ("acme = acme_jobs:number", "must be a function of a JobId"),
            ("acme = nowhere:factory", "cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
        ],
    )
    def test_an_error_names_the_package(
        self, write_module: WriteModule, tmp_path: Path, entry: str, message: str
    ) -> None:
        write_module("acme_jobs", FACTORY)
        self.install(tmp_path, entry)
        with pytest.raises(JobFactoryNotFoundError, match=rf"entry point of acme-jobs\) {message}"):
            installed_factories()

    def test_installed_factories_come_after_the_named_and_before_the_builtin_one(
        self, write_module: WriteModule, tmp_path: Path
    ) -> None:
        write_module("acme_jobs", FACTORY.replace('{"drain"', '{"noop": Drain, "drain"'))
        write_module("my_jobs", FACTORY)
        self.install(tmp_path, "acme = acme_jobs:factory")
        factory = find_factory("my_jobs:factory", max_output=5000)
        assert type(factory(job_id("drain"))).__module__ == "my_jobs"
        assert type(factory(job_id("noop"))).__module__ == "acme_jobs"
        command = factory(job_id("shell-command"))
        assert isinstance(command, ShellCommand)
        assert command.max_output == 5000

    def test_the_builtin_factory_alone_suffices(self) -> None:
        assert isinstance(find_factory("")(job_id("noop")), Noop)


class TestCombine:
    def test_asks_the_factories_of_users_first(self) -> None:
        mine = JobTypes({"noop": Task, "drain": Task})
        factory = combine([mine])
        assert isinstance(factory(job_id("noop")), Task)
        assert isinstance(factory(job_id("drain")), Task)
        assert isinstance(combine([])(job_id("noop")), Noop)

    def test_asks_the_factories_in_order(self) -> None:
        class Other(Task):
            pass

        factory = combine([JobTypes({"a": Task}), JobTypes({"a": Other, "b": Other})])
        assert type(factory(job_id("a"))) is Task
        assert type(factory(job_id("b"))) is Other

    def test_raises_if_no_factory_knows_the_type(self) -> None:
        with pytest.raises(UnknownJobTypeError, match=r"^unknown job type: restart$"):
            combine([JobTypes({"drain": Task})])(job_id("restart"))

    def test_passes_other_errors_on(self) -> None:
        def broken(_: JobId) -> Job:
            raise OSError("no route to host")

        with pytest.raises(OSError, match="no route to host"):
            combine([broken])(job_id("noop"))


class TestKnowsJobType:
    def test_asks_the_factory(self) -> None:
        knows = knows_job_type(combine([JobTypes({"drain": Task})]))
        assert knows("drain")
        assert knows("noop")
        assert not knows("restart")

    def test_asks_the_factory_once_per_type(self) -> None:
        asked: list[str] = []

        def factory(job_id: JobId) -> Job:
            asked.append(job_id.type)
            raise UnknownJobTypeError(job_id.type)

        knows = knows_job_type(factory)
        assert not knows("drain")
        assert not knows("drain")
        assert asked == ["drain"]

    def test_a_factory_that_raises_another_error_knows_the_type(self) -> None:
        def broken(_: JobId) -> Job:
            raise OSError("no route to host")

        assert knows_job_type(broken)("drain")

    def test_a_factory_that_exits_knows_the_type(self) -> None:
        def exits(_: JobId) -> Job:
            raise SystemExit(1)

        assert knows_job_type(exits)("drain")

    def test_types_for_which_the_factory_hangs_are_known_and_others_are_asked(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(job_factories, "ANSWER_TIMEOUT", 0.1)
        released = threading.Event()

        def factory(job_id: JobId) -> Job:
            if job_id.type.startswith("hangs"):
                released.wait()
            raise UnknownJobTypeError(job_id.type)

        knows = knows_job_type(factory)
        assert [knows(one) for one in ("hangs-1", "hangs-2", "hangs-1")] == [True, True, True]
        released.set()
        assert not knows_job_type(factory)("hangs-1")
