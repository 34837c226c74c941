"""The path of a job: the sequences around it, with the args that distinguish them, and its name."""

from __future__ import annotations

from spincycle_grpc.cli.output import printable
from spincycle_grpc.job_paths import path_text
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.status_pb2 import JobStatus


def is_connector(job: JobLog | JobStatus) -> bool:
    """Whether a job is a noop that only connects other jobs."""
    return job.name == job.type == "noop" and not job.path


def line_name(job: JobLog | JobStatus) -> str:
    """Returns what names a job in a line of text: its path. Without one, its id and its name."""
    return printable(path_text(job.path) or f"{job.job_id} {job.name}")


def path_of(job: JobLog | JobStatus) -> str:
    """Returns the path of a job, such as "rolling-restart / host web7 / drain".

    Jobs without a path have their name: jobs that only connect others, and jobs of requests that were created
    by an earlier release or by an original.
    """
    return path_text(job.path) or job.name
