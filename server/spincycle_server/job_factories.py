"""The job factories of an installation: found by name or by entry point, and asked one after the other."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import structlog

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.jobs import Job, JobFactory, JobId, UnknownJobTypeError
from spincycle_server.builtin_jobs import DEFAULT_MAX_OUTPUT, builtin_factory, make_builtin_factory

ENTRY_POINT_GROUP = "spincycle.jobs"
"""The group under which an installed package names its job factory."""

_log = structlog.get_logger()


class JobFactoryNotFoundError(InvalidArgumentError):
    """What the configuration names is no job factory. Reason: JOB_FACTORY_NOT_FOUND."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="JOB_FACTORY_NOT_FOUND")


def find_factory(name: str, max_output: int = DEFAULT_MAX_OUTPUT) -> JobFactory:
    """Returns the factory of an installation: the named one, the installed ones, the built-in types.

    Args:
        name: As for `load_factory`; "" for none.
        max_output: As for `make_builtin_factory`.

    Raises:
        JobFactoryNotFoundError: One of them cannot be loaded.
    """
    named = [load_factory(name)] if name else []
    return combine([*named, *installed_factories()], make_builtin_factory(max_output))


def load_factory(name: str) -> JobFactory:
    """Imports a job factory.

    Args:
        name: `module:attribute`; the module is looked for in the current directory too, after all
            else, so that a file there never hides an installed package.

    Raises:
        JobFactoryNotFoundError: The name has another form, or there is no such module or attribute, or
            the module cannot be imported, or the attribute cannot be called.
    """
    module_name, _, attribute = name.partition(":")
    if not _is_path(module_name) or not _is_path(attribute):
        raise JobFactoryNotFoundError(
            f"job factory {name!r} must be given as module:attribute, as my_jobs:factory"
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
    """Returns the factories that installed packages register, ordered by name of the entry point.

    Raises:
        JobFactoryNotFoundError: One of them cannot be loaded.
    """
    found = sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: (entry.name, entry.value))
    return [_load_entry_point(entry) for entry in found]


def combine(factories: Sequence[JobFactory], builtin: JobFactory = builtin_factory) -> JobFactory:
    """Returns a factory that asks several for a job.

    Args:
        factories: The user's, asked in their order.
        builtin: The one that is asked last.

    Returns:
        A factory that raises UnknownJobTypeError when none knows the type.
    """
    in_order = (*factories, builtin)

    def factory(job_id: JobId) -> Job:
        for each in in_order:
            try:
                return each(job_id)
            except UnknownJobTypeError:
                continue
        raise UnknownJobTypeError(job_id.type)

    return factory


def knows_job_type(factory: JobFactory) -> Callable[[str], bool]:
    """Returns what says whether a factory knows a job type; for the linter of specs.

    A factory is asked for a job that nobody runs. One that fails in another way than with
    UnknownJobTypeError knows the type: what it lacks may be there once a request needs the job.
    """
    answers: dict[str, bool] = {}

    def ask(job_type: str) -> bool:
        try:
            factory(JobId(job_type, "lint", "0000", ""))
        except UnknownJobTypeError:
            return False
        except Exception:
            _log.warning("the job factory failed when asked for a job type", job_type=job_type, exc_info=True)
        return True

    def knows(job_type: str) -> bool:
        if job_type not in answers:
            answers[job_type] = ask(job_type)
        return answers[job_type]

    return knows


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
            f"job factory {name}: there is no module {module_name}, neither installed nor in {directory}"
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
    """Returns where in the user's module an import failed, as " (jobs.py, line 3)"."""
    if isinstance(error, SyntaxError):
        return ""  # its text says where
    trace = error.__traceback__
    place = ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith("<") and file not in (__file__, importlib.__file__):
            place = f" ({Path(file).name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return place
