"""Builds a job chain from specs and args. Apart from the jobs' own `create`, building is a pure function."""

from spincycle_server.graph.build_monitor import BuildMonitor, JobCreation
from spincycle_server.graph.builder import BuiltRequest, ChainBuilder
from spincycle_server.graph.job_ids import job_ids
from spincycle_server.graph.request_args import request_specs

__all__ = ["BuildMonitor", "BuiltRequest", "ChainBuilder", "JobCreation", "job_ids", "request_specs"]
