"""`spincycle lint` checks request specs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from spincycle_server.job_factories import find_factory, knows_job_type
from spincycle_server.spec_files import check_specs, read_spec_files
from spincycle_server.specs.problems import Problem, Severity


@click.command("lint")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--warnings", is_flag=True, help="Print warnings too.")
@click.option("--strict", is_flag=True, help="Print warnings too, and exit with 1 if there are any.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Output format.",
)
@click.option(
    "--jobs", metavar="MODULE:ATTRIBUTE", help="Job factory. Without it, job types are not checked."
)
def lint_command(directory: Path, warnings: bool, strict: bool, output_format: str, jobs: str | None) -> None:
    """Check the request specs in DIR and its subdirectories.

    Exit status: 0 if there are no errors and, with --strict, no warnings; 1 if there are some; 2 if DIR or
    the job factory cannot be loaded.
    """
    files = read_spec_files(directory)
    specs, problems = check_specs(files, knows_job_type(find_factory(jobs)) if jobs else None)
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    shown = problems if warnings or strict else errors
    if output_format == "json":
        click.echo(json.dumps([_json_object(problem) for problem in shown], indent=2, ensure_ascii=False))
    else:
        for problem in shown:
            click.echo(str(problem))
    warning_count = len(problems) - len(errors)
    click.echo(
        f"{_counted(len(errors), 'error')}, {_counted(warning_count, 'warning')}"
        + (" (use --warnings to print them)" if len(shown) < len(problems) else "")
        + f" in {_counted(len(specs.sequences), 'sequence')} of {_counted(len(files), 'file')}",
        err=True,
    )
    if errors or (strict and warning_count):
        sys.exit(1)


def _json_object(problem: Problem) -> dict[str, str | int]:
    return {
        "file": problem.position.file,
        "line": problem.position.line,
        "column": problem.position.column,
        "severity": problem.severity.value,
        "code": problem.code,
        "sequence": problem.sequence,
        "node": problem.node,
        "field": problem.field,
        "message": problem.message,
    }


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
