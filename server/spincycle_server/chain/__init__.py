"""The state machine of one running chain. It is pure: no clock, no threads, no I/O."""

from spincycle_server.chain.actions import Actions, Run, Stop, Timer, Wait
from spincycle_server.chain.job_names import job_called
from spincycle_server.chain.retrying import begun_sequences, retried_chain
from spincycle_server.chain.running_chain import RunningChain

__all__ = [
    "Actions",
    "Run",
    "RunningChain",
    "Stop",
    "Timer",
    "Wait",
    "begun_sequences",
    "job_called",
    "retried_chain",
]
