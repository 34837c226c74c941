"""The job types that always work: noop, sleep and shell-command."""

from __future__ import annotations

from functools import partial

from spincycle_grpc.jobs import JobFactory, JobId, JobTypes, make_job
from spincycle_server.builtin_jobs.noop import Noop
from spincycle_server.builtin_jobs.shell_command import ShellCommand
from spincycle_server.builtin_jobs.sleep import Sleep

__all__ = [
    "BUILTIN",
    "DEFAULT_MAX_OUTPUT",
    "Noop",
    "ShellCommand",
    "Sleep",
    "builtin_factory",
    "make_builtin_factory",
    "makes_builtin",
]

BUILTIN = (Noop, Sleep, ShellCommand)
"""The classes of the built-in jobs. None of their methods blocks."""

DEFAULT_MAX_OUTPUT = 1 << 20
"""How many bytes of each output of a shell command are kept unless told otherwise."""


def make_builtin_factory(max_output: int = DEFAULT_MAX_OUTPUT) -> JobFactory:
    """Returns the factory of the built-in types.

    Args:
        max_output: How many bytes a shell command's stdout, and its stderr, may each have; of
            longer ones the middle is cut out.
    """
    return JobTypes(
        {
            "noop": Noop,
            "sleep": Sleep,
            "shell-command": partial(ShellCommand, max_output=max_output),
        }
    )


builtin_factory: JobFactory = make_builtin_factory()
"""The built-in types, with 1 MiB of each output."""


def makes_builtin(factory: JobFactory, job_type: str, kinds: tuple[type, ...] = BUILTIN) -> bool:
    """Whether a factory makes a built-in job of a type, and not a user's of that name."""
    try:
        return type(make_job(factory, JobId(job_type, job_type, "0000", ""))) in kinds
    except Exception:
        return False
