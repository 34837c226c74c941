"""Spec files on disk, and the specs that a Request Manager starts with."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_server.specs.linter import lint
from spincycle_server.specs.model import Specs
from spincycle_server.specs.parser import parse_specs
from spincycle_server.specs.problems import Problem, Severity

logger = structlog.get_logger(__name__)

MAX_FILE_BYTES = 16 * 1024 * 1024
"""The largest spec file that is read."""

MAX_FILES = 10_000
"""Spec files in one directory and those under it."""

SHOWN_PROBLEMS = 20
"""Problems that the error of a server that cannot start tells; the log has all of them."""


class SpecsError(InvalidArgumentError):
    """Specs cannot be used. Reasons: BAD_SPECS, SPECS_NOT_READABLE."""


def read_spec_files(directory: Path) -> dict[str, bytes]:
    """Returns the contents of all `*.yaml` files, in any case, in and under a directory, by relative path.

    Links to directories are not followed.

    Raises:
        SpecsError: There is no such directory, or a file in it cannot be read or is too large.
    """
    if not directory.is_dir():
        raise _not_readable(f"there is no specs directory {directory}: create it, or name another one")
    files: dict[str, bytes] = {}
    for root, directories, names in os.walk(directory, onerror=_stop):
        directories.sort()
        for name in sorted(names):
            path = Path(root, name)
            if path.suffix.lower() != ".yaml":
                continue
            if len(files) == MAX_FILES:
                raise _not_readable(f"there are more than {MAX_FILES} spec files in {directory}")
            files[path.relative_to(directory).as_posix()] = _read(path)
    return files


def check_specs(
    files: Mapping[str, bytes], knows_job_type: Callable[[str], bool] | None
) -> tuple[Specs, list[Problem]]:
    """Returns the specs of some files, and all that is wrong with them by file and line.

    Args:
        files: Names to contents.
        knows_job_type: Whether the job factory makes jobs of a type; None: types are not checked.
    """
    parsed = parse_specs(files)
    # What could not be read leaves a gap, which the linter would complain of once more.
    told = {problem.position for problem in parsed.problems}
    linted = [problem for problem in lint(parsed.specs, knows_job_type) if problem.position not in told]
    return parsed.specs, sorted([*parsed.problems, *linted], key=lambda problem: problem.sort_key)


def usable_specs(directory: Path, knows_job_type: Callable[[str], bool]) -> tuple[Specs, list[Problem]]:
    """Returns the specs of a directory, after checking them, and the warnings.

    Args:
        directory: Where the spec files are.
        knows_job_type: Whether the job factory makes jobs of a type.

    Raises:
        SpecsError: They cannot be read, or have errors.
    """
    specs, problems = check_specs(read_spec_files(directory), knows_job_type)
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    if errors:
        raise SpecsError(_told(directory, errors), reason="BAD_SPECS")
    return specs, problems


def load_specs(directory: Path, knows_job_type: Callable[[str], bool]) -> Specs:
    """Returns the specs of a directory for a server: warnings are logged.

    Raises:
        SpecsError: As `usable_specs`.
    """
    specs, warnings = usable_specs(directory, knows_job_type)
    for problem in warnings:
        logger.warning("spec warning", problem=str(problem))
    logger.info("specs loaded", directory=str(directory), sequences=len(specs.sequences))
    return specs


def _told(directory: Path, errors: list[Problem]) -> str:
    lines = [str(problem) for problem in errors[:SHOWN_PROBLEMS]]
    if len(errors) > SHOWN_PROBLEMS:
        lines.append(f"and {len(errors) - SHOWN_PROBLEMS} more")
    count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
    return f"the specs in {directory} have {count}; `spincycle lint` shows all:\n" + "\n".join(lines)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _not_readable(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise _not_readable(f"{path} is larger than {MAX_FILE_BYTES} bytes: split it")
    return data


def _stop(error: OSError) -> None:
    raise _not_readable(f"cannot read {error.filename}: {error.strerror}") from error


def _not_readable(message: str) -> SpecsError:
    return SpecsError(message, reason="SPECS_NOT_READABLE")
