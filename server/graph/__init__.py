"""Specs and args to a job chain: a plain function of its inputs, but for what the jobs' own create does."""

from server.graph.builder import BuiltRequest, ChainBuilder
from server.graph.job_ids import job_ids
from server.graph.request_args import request_specs
from server.graph.watch import BuildWatch, Creating

__all__ = ["BuildWatch", "BuiltRequest", "ChainBuilder", "Creating", "job_ids", "request_specs"]
