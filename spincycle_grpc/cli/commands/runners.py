"""`spinc runners`: lists the Job Runners that are alive."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import tzinfo

import click

from spincycle_grpc.cli.output import show_json
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.cli.short_ids import shortened
from spincycle_grpc.cli.tables import Column, show_table
from spincycle_grpc.cli.times import age_text, time_text
from spincycle_grpc.v1.installation_pb2 import Runner
from spincycle_grpc.v1.request_manager_pb2 import ListRunnersResponse
from spincycle_grpc.wire import encode

_NARROW_FIRST = ("STARTED", "RUNNER", "VERSION", "TYPES", "AGE")


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
    _show(runners, settings.zone)


def _show(runners: Sequence[Runner], zone: tzinfo | None) -> None:
    now = time.time_ns()
    ids = [runner.id for runner in runners]
    ages = Column("AGE", [age_text(runner.started_at, now) for runner in runners], may_drop=True)
    running = ["?" if runner.silent else str(runner.running_jobs) for runner in runners]
    show_table(
        (
            Column("RUNNER", ids, narrow=Column("RUNNER", shortened(ids))),
            Column("URL", [runner.url for runner in runners], least=12, keeps_end=True),
            Column("VERSION", [runner.version for runner in runners], may_drop=True),
            Column("STARTED", [time_text(runner.started_at, zone) for runner in runners], narrow=ages),
            Column("REQUESTS", [_requests(runner) for runner in runners]),
            Column("JOBS", running),
            Column("TYPES", [_types(runner) for runner in runners], may_drop=True),
            Column("LABELS", [_labels(runner) for runner in runners], least=6),
            Column("STATE", [_state(runner) for runner in runners], least=6),
        ),
        _NARROW_FIRST,
    )


def _requests(runner: Runner) -> str:
    return f"{runner.running_requests}{'+' if runner.more_requests else ''}"


def _types(runner: Runner) -> str:
    return "all" if runner.knows_all_job_types else str(len(runner.job_types))


def _labels(runner: Runner) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted(runner.labels.items()))


def _state(runner: Runner) -> str:
    states = (("drains", runner.draining), ("full", runner.full), ("does not answer", runner.silent))
    return ", ".join(text for text, is_set in states if is_set) or "ok"
