"""Specs and args to a job chain: a plain function of its inputs, but for what the jobs' own create does."""

from spincycle_server.graph.builder import BuiltRequest, ChainBuilder
from spincycle_server.graph.job_ids import job_ids
from spincycle_server.graph.request_args import request_specs
from spincycle_server.graph.watch import BuildWatch, Creating

__all__ = ["BuildWatch", "BuiltRequest", "ChainBuilder", "Creating", "job_ids", "request_specs"]
