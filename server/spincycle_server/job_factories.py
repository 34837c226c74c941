"""Finds the job factories of an installation, by name or by entry point, and combines them."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import structlog

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.jobs import Job, JobFactory, JobId, UnknownJobTypeError
from spincycle_server.builtin_jobs import DEFAULT_MAX_OUTPUT, builtin_factory, make_builtin_factory

ANSWER_TIMEOUT = 10.0
"""Seconds that the linter waits until a factory says whether it knows a job type."""

NEXT_ANSWER_TIMEOUT = 1.0
"""The same for further types, after the factory did not answer for one."""

ENTRY_POINT_GROUP = "spincycle.jobs"
"""The entry point group in which an installed package registers its job factory."""

_log = structlog.get_logger()


class JobFactoryNotFoundError(InvalidArgumentError):
    """A job factory cannot be loaded. Reason: JOB_FACTORY_NOT_FOUND."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="JOB_FACTORY_NOT_FOUND")


def find_factory(name: str, max_output: int = DEFAULT_MAX_OUTPUT) -> JobFactory:
    """Returns one factory that asks the named factory, then the installed ones, then the built-in one.

    Args:
        name: The name of a factory, as for `load_factory`; "" for none.
        max_output: The maximum output of a built-in job, as for `make_builtin_factory`.

    Raises:
        JobFactoryNotFoundError: A factory cannot be loaded.
    """
    named = [load_factory(name)] if name else []
    return combine([*named, *installed_factories()], make_builtin_factory(max_output))


def load_factory(name: str) -> JobFactory:
    """Imports a job factory.

    Args:
        name: `module:attribute`. The current directory is searched last, so that a file there never hides an
            installed package.

    Raises:
        JobFactoryNotFoundError: The name has another form, the module or the attribute does not exist, the
            module cannot be imported, or the attribute is not a function.
    """
    module_name, _, attribute = name.partition(":")
    if not _is_path(module_name) or not _is_path(attribute):
        raise JobFactoryNotFoundError(
            f"job factory {name!r} must have the form module:attribute, such as my_jobs:factory"
        )
    found: Any = _import(module_name, name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise JobFactoryNotFoundError(
                f"job factory {name}: module {module_name} has no attribute {attribute}"
            )
        found = getattr(found, part)
    return _checked(found, name)


def installed_factories() -> list[JobFactory]:
    """Returns the factories that installed packages register, ordered by the name of the entry point.

    Raises:
        JobFactoryNotFoundError: A factory cannot be loaded.
    """
    found = sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: (entry.name, entry.value))
    return [_load_entry_point(entry) for entry in found]


def combine(factories: Sequence[JobFactory], builtin: JobFactory = builtin_factory) -> JobFactory:
    """Returns a factory that asks several factories in order.

    It raises UnknownJobTypeError if none of them knows the job type.

    Args:
        factories: The factories of users.
        builtin: The factory that is asked last.
    """
    in_order = (*factories, builtin)

    def factory(job_id: JobId) -> Job:
        for candidate in in_order:
            try:
                return candidate(job_id)
            except UnknownJobTypeError:
                continue
        raise UnknownJobTypeError(job_id.type)

    return factory


def knows_job_type(factory: JobFactory) -> Callable[[str], bool]:
    """Returns a function that tells whether a factory knows a job type, for the linter.

    Each type is asked once, as `factory_knows` does, in a thread. If the factory hangs, the type counts as
    known, because runners ask again, and the server must start for its other requests.
    """
    answers: dict[str, bool] = {}
    limit = ANSWER_TIMEOUT

    def knows(job_type: str) -> bool:
        nonlocal limit
        if job_type not in answers:
            answer = _answer_within(limit, factory, job_type)
            if answer is None:
                _log.warning(
                    "the job factory did not say whether it knows a job type that specs name",
                    job_type=job_type,
                    error=f"no answer within {limit:g} s",
                )
                limit = min(limit, NEXT_ANSWER_TIMEOUT)
            answers[job_type] = answer is not False
        return answers[job_type]

    return knows


def _answer_within(limit: float, factory: JobFactory, job_type: str) -> bool | None:
    """Returns whether a factory knows a job type; None if it does not answer within the limit."""
    answer: list[bool] = []
    thread = threading.Thread(
        target=lambda: answer.append(factory_knows(factory, job_type)), name="job-types", daemon=True
    )
    thread.start()
    thread.join(limit)
    return answer[0] if answer else None


def factory_knows(factory: JobFactory, job_type: str) -> bool:
    """Whether a factory knows a job type. It may block.

    It creates a job of the type, which never runs. If the factory raises anything but UnknownJobTypeError, it
    knows the type: whatever it lacks now may exist when a request needs the job.
    """
    try:
        factory(JobId(job_type, "lint", "0000", ""))
    except UnknownJobTypeError:
        return False
    except BaseException:  # Also SystemExit: a factory must not end the server.
        _log.warning(
            "the job factory failed to create a job of a type that specs name",
            job_type=job_type,
            exc_info=True,
        )
    return True


def _is_path(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _import(module_name: str, name: str) -> Any:
    directory = str(Path.cwd())
    if directory not in sys.path:
        sys.path.append(directory)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _broken(name, error) from error
        raise JobFactoryNotFoundError(
            f"job factory {name}: module {module_name} is neither installed nor in {directory}"
        ) from error
    except Exception as error:
        raise _broken(name, error) from error


def _load_entry_point(entry: EntryPoint) -> JobFactory:
    name = f"{entry.name} ({entry.value}, entry point of {entry.dist.name if entry.dist else 'a package'})"
    try:
        return _checked(entry.load(), name)
    except JobFactoryNotFoundError:
        raise
    except Exception as error:
        raise _broken(name, error) from error


def _checked(found: Any, name: str) -> JobFactory:
    if isinstance(found, type) or not callable(found):
        raise JobFactoryNotFoundError(
            f"job factory {name} must be a function of a JobId, or JobTypes({{...}}), not {found!r:.80}"
        )
    factory: JobFactory = found
    return factory


def _broken(name: str, error: Exception) -> JobFactoryNotFoundError:
    lines = str(error).splitlines()
    reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return JobFactoryNotFoundError(f"job factory {name} cannot be imported: {reason}{_place(error)}")


def _place(error: Exception) -> str:
    """Returns the line of the user's module at which an import failed, such as " (jobs.py, line 3)"."""
    if isinstance(error, SyntaxError):
        return ""  # Its message contains the line.
    trace = error.__traceback__
    place = ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith("<") and file not in (__file__, importlib.__file__):
            place = f" ({Path(file).name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return place
