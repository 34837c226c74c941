"""Reads spec files, and loads the specs that a Request Manager starts with."""

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
"""The maximum size of a spec file."""

MAX_FILES = 10_000
"""The maximum number of spec files in a specs directory, including its subdirectories."""

_SUFFIXES = (".yaml", ".yml")

SHOWN_PROBLEMS = 20
"""The maximum number of problems that the error message of a server lists."""


class SpecsError(InvalidArgumentError):
    """The specs are invalid or cannot be read. Reasons: BAD_SPECS, SPECS_NOT_READABLE."""


def read_spec_files(directory: Path) -> dict[str, bytes]:
    """Returns the contents of all `*.yaml` and `*.yml` files in a directory and below, by relative path.

    The case of the suffix does not matter. Symbolic links to directories are not followed. Names with a
    leading dot are ignored: they belong to editors, macOS, or the versions of a mounted ConfigMap. So is
    everything that is not a file, such as a FIFO, whose reader would wait forever.

    Raises:
        SpecsError: The directory does not exist, or a file cannot be read or is too large.
    """
    if not directory.is_dir():
        raise _not_readable(
            f"the specs directory {directory} does not exist: create it, or name another directory"
        )
    files: dict[str, bytes] = {}
    for root, directories, names in os.walk(directory, onerror=_raise_not_readable):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        for name in sorted(names):
            path = Path(root, name)
            if name.startswith(".") or path.suffix.lower() not in _SUFFIXES or _is_special(path):
                continue
            if len(files) == MAX_FILES:
                raise _not_readable(f"{directory} contains more than {MAX_FILES} spec files")
            files[path.relative_to(directory).as_posix()] = _read(path)
    return files


def check_specs(
    files: Mapping[str, bytes], knows_job_type: Callable[[str], bool] | None
) -> tuple[Specs, list[Problem]]:
    """Parses and lints spec files. Returns the specs, and the problems ordered by file and line.

    Args:
        files: The contents of the files by name.
        knows_job_type: Returns whether the job factory knows a job type. None skips this check.
    """
    parsed = parse_specs(files)
    # A parsing error leaves a gap, which the linter would report as a second problem.
    reported = {problem.position for problem in parsed.problems}
    linted = [problem for problem in lint(parsed.specs, knows_job_type) if problem.position not in reported]
    return parsed.specs, sorted([*parsed.problems, *linted], key=lambda problem: problem.sort_key)


def usable_specs(directory: Path, knows_job_type: Callable[[str], bool]) -> tuple[Specs, list[Problem]]:
    """Returns the specs of a directory, and their warnings.

    Args:
        directory: The directory.
        knows_job_type: Returns whether the job factory knows a job type.

    Raises:
        SpecsError: The specs cannot be read, or have errors.
    """
    specs, problems = check_specs(read_spec_files(directory), knows_job_type)
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    if errors:
        raise SpecsError(_summary(directory, errors), reason="BAD_SPECS")
    return specs, problems


def load_specs(directory: Path, knows_job_type: Callable[[str], bool]) -> Specs:
    """Returns the specs of a directory for a server, and logs their warnings.

    Raises:
        SpecsError: The specs cannot be read, or have errors.
    """
    specs, warnings = usable_specs(directory, knows_job_type)
    for problem in warnings:
        logger.warning("spec warning", problem=str(problem))
    if not specs.sequences:
        logger.warning(
            "the specs directory contains no specs: no request can be created", directory=str(directory)
        )
    logger.info("specs loaded", directory=str(directory), sequences=len(specs.sequences))
    return specs


def _summary(directory: Path, errors: list[Problem]) -> str:
    lines = [str(problem) for problem in errors[:SHOWN_PROBLEMS]]
    if len(errors) > SHOWN_PROBLEMS:
        lines.append(f"and {len(errors) - SHOWN_PROBLEMS} more")
    count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
    return f"the specs in {directory} have {count} (`spincycle lint` prints all):\n" + "\n".join(lines)


def _is_special(path: Path) -> bool:
    """Whether a path leads to something that exists and is not a file."""
    return path.exists() and not path.is_file()


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _not_readable(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise _not_readable(f"{path} is larger than {MAX_FILE_BYTES} bytes: split the file")
    return data


def _raise_not_readable(error: OSError) -> None:
    raise _not_readable(f"cannot read {error.filename}: {error.strerror}") from error


def _not_readable(message: str) -> SpecsError:
    return SpecsError(message, reason="SPECS_NOT_READABLE")
