"""`spinc runners`: lists the Job Runners that are alive."""

from __future__ import annotations

import click

from spincycle_grpc.cli.output import show_json, show_table, time_text
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.v1.installation_pb2 import Runner
from spincycle_grpc.v1.request_manager_pb2 import ListRunnersResponse
from spincycle_grpc.wire import encode

_HEADINGS = ("RUNNER", "URL", "VERSION", "STARTED", "REQUESTS", "JOBS", "TYPES", "LABELS", "STATE")


@click.command("runners")
@client_options
@pass_settings
def command(settings: Settings) -> None:
    """List the Job Runners that are alive, with what they run.

    REQUESTS and JOBS count what runs now. TYPES is the number of job types that the runner knows. --json also
    shows the types. STATE is "ok", or says that the runner is full, drains, or does not answer.
    """
    with settings.client() as client:
        runners = client.list_runners()
    if settings.as_json:
        show_json(encode(ListRunnersResponse(runners=runners), "runners"))
        return
    show_table(_HEADINGS, [_row(runner) for runner in runners])


def _row(runner: Runner) -> tuple[str, ...]:
    return (
        runner.id,
        runner.url,
        runner.version,
        time_text(runner.started_at),
        f"{runner.running_requests}{'+' if runner.more_requests else ''}",
        "?" if runner.silent else str(runner.running_jobs),
        "all" if runner.knows_all_job_types else str(len(runner.job_types)),
        ",".join(f"{name}={value}" for name, value in sorted(runner.labels.items())),
        _state(runner),
    )


def _state(runner: Runner) -> str:
    states = (("drains", runner.draining), ("full", runner.full), ("does not answer", runner.silent))
    return ", ".join(text for text, is_set in states if is_set) or "ok"
