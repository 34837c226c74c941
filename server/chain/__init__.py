"""The state machine of one running chain: pure, without a clock, threads or I/O."""

from server.chain.actions import Actions, Run, Stop, Timer, Wait
from server.chain.records import TryRecord
from server.chain.running_chain import RunningChain

__all__ = ["Actions", "Run", "RunningChain", "Stop", "Timer", "TryRecord", "Wait"]
