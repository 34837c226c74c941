"""The changes of requests as streams of messages with cursors."""

from spincycle_server.watch.hub import Hub
from spincycle_server.watch.running_jobs import RunningJobsPoll, RunningSnapshots
from spincycle_server.watch.watching import Watching

__all__ = ["Hub", "RunningJobsPoll", "RunningSnapshots", "Watching"]
