"""The supervisor: it forks workers, replaces those that die, and ends with all of them.

It runs a plain loop in its only thread, because only such a process can fork safely at any time.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import structlog

from spincycle_server.workers.frames import Frame, Kind
from spincycle_server.workers.gathering import Gathering
from spincycle_server.workers.signals import Signals, blocked, end_with
from spincycle_server.workers.worker_process import WorkerProcess

logger = structlog.get_logger(__name__)

ALIVE_SHARE = 3
"""How many signs of life fall into the time of the watchdog."""

_IDLE = 60.0
_STALL = 1.0
"""Seconds by which the supervisor may be late. If it is later, it was frozen, and so were its workers."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a worker knows about itself.

    Attributes:
        number: Its number, from 1.
        connection: The socket to the supervisor.
        alive_interval: Seconds between signs of life; None if nobody expects any.
    """

    number: int
    connection: socket.socket
    alive_interval: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervision:
    """How workers are supervised.

    Attributes:
        workers: How many there are.
        stop_limit: Seconds that workers have to stop. Then they are killed.
        watchdog: Seconds after which a worker without a sign of life is killed; None if none is expected.
        on_listening: Called once, when all workers listen.
        on_stopping: Called once, when the workers are told to stop.
        on_alive: Called several times within the time of the watchdog.
        on_hangup: Called on SIGHUP. Returns whether the workers must stop, because the terminal is gone.
        add_counts: Adds up the numbers of ended workers: those so far, or None, and the newest ones.
    """

    workers: int
    stop_limit: float
    watchdog: float | None
    on_listening: Callable[[], None]
    on_stopping: Callable[[], None]
    on_alive: Callable[[], None]
    on_hangup: Callable[[], bool]
    add_counts: Callable[[bytes | None, bytes], bytes]


def supervise(supervision: Supervision) -> Place:
    """Starts workers. Returns in each of them, and never in this process.

    The first worker starts alone, so that an error that all would have is reported once. Call it before any
    thread starts.

    Raises:
        SystemExit: In this process: all workers have ended. Its status is 0 after a shutdown, and that of the
            worker if one cannot start.
    """
    return _Supervisor(supervision).run()


class _Supervisor:
    def __init__(self, supervision: Supervision) -> None:
        self._with = supervision
        self._workers = [WorkerProcess(number) for number in range(1, supervision.workers + 1)]
        self._by_number = {worker.number: worker for worker in self._workers}
        self._gathering = Gathering(self._send, supervision.add_counts)
        self._signals = Signals()
        self._have_listened = False
        self._was_told_to_stop = False
        self._kill_at: float | None = None
        self._status = 0
        self._alive_at = -_IDLE

    @property
    def _is_stopping(self) -> bool:
        return self._kill_at is not None

    def run(self) -> Place:
        """Runs until all workers have ended. Returns in each worker."""
        self._workers[0].starts_at = time.monotonic()
        while True:
            for worker in self._workers:
                if worker.starts_at is not None and worker.starts_at <= time.monotonic():
                    place = self._start(worker)
                    if place is not None:
                        return place
            self._wait()
            for number in self._signals.take():
                self._handle(number)
            for worker in self._workers:
                self._read(worker)
                status = worker.reap()
                if status is not None:
                    self._read(worker)  # what it wrote before its end
                    self._ended(worker, status)
            self._gathering.expire()
            self._look_for_life()
            self._kill_late()
            if self._is_stopping and all(worker.pid is None for worker in self._workers):
                self._exit()

    def _start(self, worker: WorkerProcess) -> Place | None:
        """Forks. Returns the place of the worker in the new process."""
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        with blocked():
            pid = os.fork()
            if not pid:
                # The terminal sends Ctrl-C to a whole group, and the supervisor passes it on.
                os.setpgid(0, 0)
                end_with(parent)
                self._let_go(ours)
        if not pid:
            watchdog = self._with.watchdog
            return Place(worker.number, theirs, None if watchdog is None else watchdog / ALIVE_SHARE)
        theirs.close()
        worker.begin(pid, ours)
        logger.info("worker started", worker=worker.number, pid=pid)
        return None

    def _let_go(self, ours: socket.socket) -> None:
        """Closes what a new worker has inherited of the supervisor."""
        ours.close()
        for other in self._workers:
            other.close()
        self._signals.restore()

    def _send(self, number: int, kind: Kind, data: bytes) -> None:
        self._by_number[number].send(kind, data)

    def _wait(self) -> None:
        """Waits for a signal, for a message, or until something is due."""
        now = time.monotonic()
        due = [worker.starts_at for worker in self._workers] + [self._gathering.deadline, self._kill_at]
        if self._with.watchdog is not None:
            due.append(now + self._with.watchdog / ALIVE_SHARE)
        wait = max(0.0, min([now + _IDLE, *(one for one in due if one is not None)]) - now)
        poller = select.poll()
        poller.register(self._signals.wakeup, select.POLLIN)
        by_descriptor = {}
        for worker in self._workers:
            if worker.descriptor is not None:
                by_descriptor[worker.descriptor] = worker
                poller.register(worker.descriptor, select.POLLIN | (select.POLLOUT * worker.has_unsent))
        for descriptor, events in poller.poll(wait * 1000 + 1):
            if events & select.POLLOUT:
                by_descriptor[descriptor].flush()
        if time.monotonic() - now > wait + _STALL:
            for worker in self._workers:
                worker.alive_at = time.monotonic()

    def _read(self, worker: WorkerProcess) -> None:
        for frame in worker.received():
            self._take(worker, frame)

    def _take(self, worker: WorkerProcess, frame: Frame) -> None:
        worker.alive_at = time.monotonic()
        match frame.kind:
            case Kind.LISTENING:
                worker.listens()
                self._start_others()
            case Kind.GATHER:
                self._gathering.ask(worker.number, [one.number for one in self._listening])
            case Kind.MEASURED:
                self._gathering.measured(worker.number, frame.data)
            case Kind.TELL:
                for other in self._listening:
                    if other is not worker:
                        other.send(Kind.TOLD, frame.data)

    @property
    def _listening(self) -> Sequence[WorkerProcess]:
        return [worker for worker in self._workers if worker.is_listening]

    def _start_others(self) -> None:
        if self._have_listened or self._is_stopping:
            return
        if len(self._listening) == 1:
            for worker in self._workers[1:]:
                worker.starts_at = time.monotonic()
        if len(self._listening) == len(self._workers):
            self._have_listened = True
            self._with.on_listening()

    def _handle(self, number: signal.Signals) -> None:
        if number is signal.SIGCHLD:
            return
        if number is signal.SIGHUP:
            if not self._with.on_hangup():
                _signal_all(self._listening, number)  # The others read the newest files anyway.
                return
        elif self._was_told_to_stop:
            logger.warning("exited at once after a second signal", signal=number.name)
            _signal_all(self._workers, signal.SIGKILL)
            os._exit(128 + number)
        self._was_told_to_stop = True
        if not self._is_stopping:
            logger.info("shutting down", signal=number.name)
            self._stop()

    def _stop(self) -> None:
        self._kill_at = time.monotonic() + self._with.stop_limit
        self._with.on_stopping()
        for worker in self._workers:
            worker.starts_at = None
        _signal_all(self._workers, signal.SIGTERM)

    def _ended(self, worker: WorkerProcess, status: int) -> None:
        pid = worker.pid
        has_listened = worker.is_listening
        pause = worker.ended()
        self._gathering.ended(worker.number)
        fields = {"worker": worker.number, "pid": pid, "status": status}
        if self._is_stopping:
            # A worker that is told to stop while it starts has no handling of signals yet.
            if status and (has_listened or status != -signal.SIGTERM):
                logger.warning("worker did not stop cleanly", **fields)
                self._status = self._status or 1
        elif not self._have_listened:
            logger.critical("a worker cannot start: shutting down", **fields)
            self._status = max(status, 0) or 1
            self._stop()
        elif pause is None:
            logger.critical("a worker ends again and again: shutting down", **fields)
            self._status = 1
            self._stop()
        else:
            logger.error("worker ended: it is replaced", **fields, pause=pause)
            self._gathering.replaced()
            worker.starts_at = time.monotonic() + pause

    def _look_for_life(self) -> None:
        """Feeds the watchdog, and kills workers whose event loop hangs."""
        watchdog, now = self._with.watchdog, time.monotonic()
        if watchdog is None:
            return
        if now - self._alive_at >= watchdog / ALIVE_SHARE:
            self._alive_at = now
            self._with.on_alive()
        for worker in self._listening:
            if now - worker.alive_at > watchdog:
                logger.error("worker hangs: it is killed", worker=worker.number, pid=worker.pid)
                worker.signal(signal.SIGKILL)

    def _kill_late(self) -> None:
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            late = [worker.number for worker in self._workers if worker.pid is not None]
            logger.error("workers did not stop in time: they are killed", workers=late)
            _signal_all(self._workers, signal.SIGKILL)
            self._kill_at = time.monotonic() + self._with.stop_limit

    def _exit(self) -> NoReturn:
        logger.info("shut down")
        self._signals.restore()
        sys.exit(self._status)


def _signal_all(workers: Iterable[WorkerProcess], number: signal.Signals) -> None:
    for worker in workers:
        worker.signal(number)
