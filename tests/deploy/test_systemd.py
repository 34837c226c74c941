"""The systemd units: what they name exists, they are valid, hardened, and give servers the time to stop."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.databases import find_binary
from tests.deploy.deployed import DEPLOY, Deployed
from tests.deploy.stopping import longest_stop
from tests.limits import COMMAND

SYSTEMD = DEPLOY / "systemd"
INSTALLED = "/opt/spincycle/bin/spincycle"

MOST_EXPOSURE = {"spincycle-job-runner@.service": 9.1}
"""What `systemd-analyze security` may find at most, if it is more than 2.0. The template runs users' sudo."""


@dataclass(frozen=True)
class Unit:
    """A unit file."""

    path: Path

    def values(self, key: str) -> list[str]:
        """Returns the values of a key, in order."""
        return re.findall(rf"^{key}=(.*)$", self.path.read_text(), re.MULTILINE)

    @property
    def deployed(self) -> Deployed:
        """What the unit runs. Its credentials are in /run."""
        (line,) = self.values("ExecStart")
        program, *words = shlex.split(line)
        assert program == INSTALLED
        replaced = {"%d": f"/run/credentials/{self.path.name}", "%S": "/var/lib"}
        variables = [
            re.sub("%[dS]", lambda found: replaced[found[0]], text) for text in self.values("Environment")
        ]
        files = {f"/etc/spincycle/{path.name}": path for path in (SYSTEMD / "etc").iterdir()}
        files["/etc/spincycle/job-runner-%i.yaml"] = files["/etc/spincycle/job-runner.yaml"]
        environment = dict(variable.split("=", 1) for variable in variables)
        return Deployed(self.path.name, words, environment, files)


UNITS = [Unit(path) for path in sorted((SYSTEMD / "system").glob("*.service"))]
each_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.path.name)


def duration(text: str) -> float:
    """Returns the seconds of a simple duration of systemd."""
    units = {"s": 1, "min": 60, "h": 3600}
    return sum(int(number) * units[name] for number, name in re.findall(r"(\d+)(s|min|h)", text))


@each_unit
def test_the_command_and_its_options_exist(unit: Unit) -> None:
    unit.deployed.check_words()


@each_unit
def test_the_options_are_valid_and_secrets_come_as_credentials(unit: Unit) -> None:
    config = unit.deployed.config()
    credentials = {value.partition(":")[0] for value in unit.values("LoadCredential")}
    named = {config.cluster_key_file, config.database_url_file, config.server_key_file} - {""}
    assert {Path(path).name for path in named} == credentials
    assert {str(Path(path).parent) for path in named} <= {f"/run/credentials/{unit.path.name}"}


@pytest.mark.parametrize(
    "unit", [unit for unit in UNITS if unit.deployed.is_server], ids=lambda unit: unit.path.name
)
def test_a_server_has_the_time_that_it_may_need_to_stop(unit: Unit) -> None:
    (limit,) = unit.values("TimeoutStopSec")
    assert duration(limit) > longest_stop(unit.deployed.command, unit.deployed.config())
    assert unit.values("KillMode") == ["mixed"]
    assert unit.values("Type") == ["notify"]


def test_units_name_no_unit_that_does_not_exist() -> None:
    own = {path.name for path in (SYSTEMD / "system").iterdir()}
    named = {
        name for path in own for name in re.findall(r"spincycle[\w@-]*\.(?:service|timer)", text_of(path))
    }
    assert named <= own


def text_of(name: str) -> str:
    return (SYSTEMD / "system" / name).read_text()


def analyze(*arguments: str) -> str:
    """Runs systemd-analyze, and returns what it prints."""
    done = subprocess.run(
        [find_binary("systemd-analyze"), *arguments],
        capture_output=True, text=True, timeout=COMMAND, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_systemd_finds_no_mistake_in_the_units(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("spincycle")
    for path in (SYSTEMD / "system").iterdir():
        (tmp_path / path.name).write_text(path.read_text().replace(INSTALLED, str(program)))
    found = analyze("verify", "--man=no", *map(str, tmp_path.iterdir()))
    assert [line for line in found.splitlines() if "spincycle" in line] == []


@each_unit
def test_units_are_hardened(unit: Unit) -> None:
    found = analyze("security", "--offline=true", str(unit.path))
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", found)
    assert exposure is not None
    assert float(exposure[1]) <= MOST_EXPOSURE.get(unit.path.name, 2.0)
