"""Hosts that jobs work on in tests: scripts that say when they run, wait at gates, and fail for bad hosts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

SCRIPT = """#!/bin/sh
# Says that it runs, waits while there is a gate for it, and fails if its host is bad.
name="$(basename "$0")${{1:+ $1}}"
echo "$name" >> {directory}/ran
while test -e "{directory}/gate $name"; do sleep 0.02; done
test ! -e "{directory}/bad $name" || exit 1
echo "end $name" >> {directory}/ran
"""


class Hosts:
    """The hosts that the scripts of the jobs work on, and what was done with them.

    Args:
        directory: Where the specs, the scripts and their log are.
        specs: The request specs. `{directory}` stands for the directory.
        steps: The names of the scripts.
    """

    def __init__(self, directory: Path, specs: str, *steps: str) -> None:
        self.directory = directory
        self.specs = directory / "specs"
        self.specs.mkdir()
        (self.specs / "restart.yaml").write_text(specs.format(directory=directory))
        for name in steps:
            script = directory / name
            script.write_text(SCRIPT.format(directory=directory))
            script.chmod(0o755)

    def is_bad(self, step: str) -> Path:
        """Makes a step fail, until the returned file is removed."""
        mark = self.directory / f"bad {step}"
        mark.touch()
        return mark

    def waits(self, step: str) -> Path:
        """Makes a step wait, until the returned file is removed."""
        gate = self.directory / f"gate {step}"
        gate.touch()
        return gate

    def log(self) -> list[str]:
        """Returns what the steps said: `drain web1` when one begins, `end drain web1` if it succeeds."""
        log = self.directory / "ran"
        return log.read_text().splitlines() if log.exists() else []

    def ran(self) -> Counter[str]:
        """Returns how often each step began."""
        return Counter(line.strip() for line in self.log() if not line.startswith("end "))

    def forget(self) -> None:
        (self.directory / "ran").write_text("")
