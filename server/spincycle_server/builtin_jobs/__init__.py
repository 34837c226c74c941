"""The built-in job types: noop, sleep and shell-command."""

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
"""The default maximum number of bytes to keep of a shell command's stdout, and of its stderr."""


BUILTIN_TYPES = frozenset({"noop", "sleep", "shell-command"})
"""The names of the built-in job types."""


def make_builtin_factory(max_output: int = DEFAULT_MAX_OUTPUT) -> JobFactory:
    """Returns the factory of the built-in types.

    Args:
        max_output: The maximum number of bytes to keep of a shell command's stdout, and of its stderr. The
            middle of a longer output is cut out.
    """
    return JobTypes(
        {
            "noop": Noop,
            "sleep": Sleep,
            "shell-command": partial(ShellCommand, max_output=max_output),
        }
    )


builtin_factory: JobFactory = make_builtin_factory()
"""The factory of the built-in types with the default limit of output."""


def makes_builtin(factory: JobFactory, job_type: str, kinds: tuple[type, ...] = BUILTIN) -> bool:
    """Returns whether a factory makes a built-in job of a type, not a user's job of the same name.

    It asks only about the names of built-in types, so a factory that hangs for others does no harm.
    """
    if job_type not in BUILTIN_TYPES:
        return False
    try:
        return type(make_job(factory, JobId(job_type, job_type, "0000", ""))) in kinds
    except Exception:
        return False
