"""One running chain: told what happened, it says what to do next.

The rules are those of the original (which jobs run when, what is tried again, how a chain ends),
with these of this project: a sequence that failed goes back only when none of its jobs runs any
more, the sequences in it go back with it, and one that has no tries left fails the one around it.

A try that fails leaves the job's data as they were. A try that was stopped does not count against
the tries that a job has. A job between two tries counts as one that runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum, auto
from typing import Any

from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_pb2 import Job, JobChain, SuspendedJobChain
from spincycle_server.chain import suspension
from spincycle_server.chain.actions import Actions, Run, Stop, Timer, Wait
from spincycle_server.chain.parts import JobPart, Parts, Phase, SequencePart, invalid, linked
from spincycle_server.chain.records import TryRecord, replay


class _Mode(Enum):
    RUNNING = auto()
    SUSPENDING = auto()
    STOPPING = auto()
    EXPIRED = auto()


class RunningChain:
    """The state of one chain. Every event costs time in the edges of its job.

    Times are nanoseconds of one clock of the driver's, which never goes back.
    """

    def __init__(self, chain: JobChain, parts: Parts) -> None:
        """Use `new` or `resume`."""
        self._chain = chain
        self._parts = parts
        self._jobs = parts.jobs
        self._mode = _Mode.RUNNING
        self._running = 0
        self._waiting_sequences = 0
        self._finished = 0
        self._began: int | None = None
        self._elapsed = 0
        self._done: State | None = None

    @classmethod
    def new(cls, chain: JobChain) -> RunningChain:
        """Returns a chain that has not run.

        Raises:
            InvalidArgumentError: It is not valid, or a job is not PENDING. Reason: INVALID_JOB_CHAIN.
        """
        running = cls(chain, linked(chain))
        for job in chain.jobs.values():
            if job.state != state_pb2.STATE_PENDING:
                raise invalid(
                    f"invalid job state for new job chain: {_named(job.state)}, "
                    f"job {job.name} (ID {job.id}); all job states must be PENDING",
                    chain.request_id,
                )
        return running

    @classmethod
    def resume(cls, suspended: SuspendedJobChain) -> RunningChain:
        """Returns a chain that goes on where it was suspended.

        Raises:
            InvalidArgumentError: It is not valid, or its counters do not fit. Reason: INVALID_JOB_CHAIN.
        """
        chain = suspended.job_chain
        running = cls(chain, linked(chain))
        running._finished = suspension.restore(suspended, running._parts)
        running._elapsed = suspended.elapsed_ms * 1_000_000
        return running

    @classmethod
    def rebuilt(
        cls, chain: JobChain, records: Iterable[TryRecord], *, base: SuspendedJobChain | None = None
    ) -> RunningChain:
        """Returns a chain that goes on from where its finished tries have brought it.

        Args:
            chain: The chain as created.
            records: The finished tries of all its assignments, in the order in which they were taken in.
            base: The chain as it was suspended before the first of these tries; None: they are all.

        Raises:
            InvalidArgumentError: The chain is not valid, or a record is not of it. Reason: INVALID_JOB_CHAIN.
        """
        running = cls(chain, linked(chain)) if base is None else cls.resume(base)
        running._finished, elapsed = replay(running._parts, records, chain.request_id)
        running._elapsed += elapsed
        return running

    @property
    def request_id(self) -> str:
        """The request that the chain is for."""
        return self._chain.request_id

    @property
    def jobs(self) -> Mapping[str, Job]:
        """The jobs as the chain was given, by id."""
        return self._chain.jobs

    @property
    def finished_jobs(self) -> int:
        """How many jobs are COMPLETE."""
        return self._finished

    @property
    def done(self) -> State | None:
        """How the chain has ended, SUSPENDED if it was set aside; None while it goes on."""
        return self._done

    def state_of(self, job_id: str) -> State:
        """Returns the state of a job. One between two tries is RUNNING."""
        return self._jobs[job_id].state

    def waits(self, job_id: str) -> bool:
        """Whether a job is between two tries."""
        return self._jobs[job_id].waits

    def tries_of(self, job_id: str) -> int:
        """Returns how often a job was tried, over the whole request, with the try that runs."""
        return self._jobs[job_id].tries

    def data_of(self, job_id: str) -> dict[str, Any]:
        """Returns the data that a job starts with; the caller must not change them."""
        return self._jobs[job_id].data

    def start(self, now: int) -> Actions:
        """Begins to run the chain, or goes on with it."""
        actions = Actions()
        self._began = now
        if self._parts.timeout:
            left = self._parts.timeout - self._elapsed
            if left <= 0:
                self._end_all(_Mode.EXPIRED, "", now, actions)
                return self._finish(actions, now)
            actions.timers.append(Timer(("request", "", 0), left))
        for sequence in self._parts.sequences.values():
            if sequence.tries:
                self._begin_time(sequence, now, actions)
        for job in self._jobs.values():
            if job.state is State.FAIL:
                self._fail_sequence(job.sequence)
        for sequence in self._parts.sequences.values():
            self._drained(sequence, now, actions)
        self._run_ready(self._jobs.values(), now, actions)
        return self._finish(actions, now)

    def try_finished(
        self,
        job_id: str,
        state: State,
        now: int,
        *,
        data: Mapping[str, Any] | None = None,
        is_last: bool = False,
    ) -> Actions:
        """Takes in the end of a job's try.

        A try that ends because it was stopped is STOPPED, unless the job says COMPLETE; one that is
        FAIL had failed before, did not end when told to, or was stopped since its time was over.

        Args:
            job_id: A job that runs.
            state: How the try ended; all but COMPLETE and STOPPED is FAIL.
            now: The time.
            data: The job's data after a try that is COMPLETE.
            is_last: Whether a job that failed is not tried again, whatever its retry is.

        Raises:
            ValueError: No try of the job runs.
        """
        job = self._jobs[job_id]
        if job.state is not State.RUNNING or job.waits:
            raise ValueError(f"job {job_id} does not run")
        actions = Actions()
        job.stopping = False
        if state is State.COMPLETE:
            self._finished += 1
            self._run_ready(job.complete(data), now, actions)
        elif job.expired:
            job.state = State.FAIL
        elif state is State.STOPPED:
            job.state = State.STOPPED
            job.run_tries -= 1
        else:
            self._fail(job, actions, can_retry=not is_last and self._mode is not _Mode.STOPPING)
        if job.state is not State.RUNNING:
            self._leave(job, now, actions)
        return self._finish(actions, now)

    def wait_over(self, key: tuple[str, str, int], now: int) -> Actions:
        """Takes in that a wait is over."""
        actions = Actions()
        kind, part_id, number = key
        if kind == "job":
            job = self._jobs[part_id]
            if job.waits and job.tries == number:
                self._run_again(job, actions)
        else:
            sequence = self._parts.sequences[part_id]
            if sequence.phase is Phase.WAITING and sequence.generation == number:
                self._waiting_sequences -= 1
                self._open(sequence, now, actions)
        return self._finish(actions, now)

    def timer_over(self, key: tuple[str, str, int], now: int) -> Actions:
        """Takes in that the time of a sequence, or of the whole chain, is over."""
        actions = Actions()
        if self._done is None and self._mode is _Mode.RUNNING:
            kind, part_id, number = key
            if kind == "request":
                self._end_all(_Mode.EXPIRED, f"request timed out after {self._chain.timeout}", now, actions)
            else:
                sequence = self._parts.sequences[part_id]
                if sequence.lifetime == number:
                    self._expire(sequence, now, actions)
        return self._finish(actions, now)

    def stop(self, now: int) -> Actions:
        """Stops the chain for good: nothing new starts, and what runs is stopped."""
        actions = Actions()
        if self._done is None and self._mode is not _Mode.EXPIRED:
            self._end_all(_Mode.STOPPING, "", now, actions)
        return self._finish(actions, now)

    def suspend(self, now: int) -> Actions:
        """Stops the chain so that it can be resumed. A chain that is being stopped goes on to be."""
        actions = Actions()
        if self._done is None and self._mode is _Mode.RUNNING:
            self._end_all(_Mode.SUSPENDING, "", now, actions)
        return self._finish(actions, now)

    def suspended(self, now: int) -> SuspendedJobChain:
        """Returns what is needed to go on with the chain, at any time. Tries that run count as not begun."""
        elapsed = self._elapsed + (now - self._began if self._began is not None else 0)
        return suspension.taken(self._chain, self._parts, self._finished, now, elapsed)

    def _fail(self, job: JobPart, actions: Actions, *, can_retry: bool) -> None:
        if not can_retry or job.run_tries > job.retry:
            job.state = State.FAIL
            if self._mode is _Mode.RUNNING:
                self._fail_sequence(job.sequence)
        elif self._mode is not _Mode.RUNNING:
            job.state = State.STOPPED
        elif job.retry_wait:
            job.waits = True
            actions.wait.append(Wait(("job", job.id, job.tries), job.retry_wait))
        else:
            self._run_again(job, actions)

    def _fail_sequence(self, sequence: SequencePart | None) -> None:
        """Has the innermost sequence that has tries left go back once it is drained, unless one does."""
        while sequence is not None and not sequence.frozen:
            if sequence.tries <= sequence.retry:
                self._freeze(sequence, Phase.DRAINING)
                return
            sequence = sequence.parent

    def _freeze(self, sequence: SequencePart, phase: Phase) -> None:
        for part in sequence.subtree():
            part.frozen = True
            if part.phase is Phase.WAITING:
                self._waiting_sequences -= 1
                part.generation += 1
                part.phase = Phase.OPEN
        sequence.phase = phase

    @staticmethod
    def _thaw(sequence: SequencePart) -> None:
        sequence.phase = Phase.OPEN
        if sequence.parent is None or not sequence.parent.frozen:
            for part in sequence.subtree():
                part.frozen = False

    def _drained(self, sequence: SequencePart, now: int, actions: Actions) -> None:
        """Goes on with a sequence that was waited for, if no job in it runs any more."""
        while sequence.phase is Phase.EXPIRED and not sequence.active and sequence.parent is not None:
            if sequence.is_complete():  # Its last job ended well just as it was stopped.
                self._thaw(sequence)
                return
            if not sequence.parent.frozen:
                self._fail_sequence(sequence.parent)
            sequence = sequence.parent
        if sequence.phase is not Phase.DRAINING or sequence.active or self._mode is not _Mode.RUNNING:
            return
        if sequence.parent is not None and sequence.parent.frozen:
            return
        self._go_back(sequence)
        if sequence.retry_wait:
            sequence.phase = Phase.WAITING
            self._waiting_sequences += 1
            sequence.generation += 1
            actions.wait.append(Wait(("sequence", sequence.id, sequence.generation), sequence.retry_wait))
        else:
            self._open(sequence, now, actions)

    def _go_back(self, sequence: SequencePart) -> None:
        """Sets all in a sequence back to before it ran, but for the jobs' data and numbers of tries."""
        for part in sequence.subtree():
            part.phase = Phase.OPEN
            if part is not sequence:
                part.tries = part.elapsed = 0
                part.began = None
                part.lifetime += 1
            for job in part.jobs:
                if job.state is State.COMPLETE:
                    self._finished -= 1
                    for child in job.children:
                        child.missing += 1
                job.state = State.PENDING
                job.run_tries = 0
                job.expired = False
        sequence.tries += 1

    def _open(self, sequence: SequencePart, now: int, actions: Actions) -> None:
        """Lets a sequence that went back run again."""
        self._thaw(sequence)
        for part in sequence.subtree():
            self._run_ready(part.jobs, now, actions)

    def _expire(self, sequence: SequencePart, now: int, actions: Actions) -> None:
        """Ends a sequence whose time is over, unless it has ended by itself."""
        if sequence.phase is Phase.EXPIRED or sequence.is_complete():
            return
        jobs = [job for part in sequence.subtree() for job in part.jobs]
        self._freeze(sequence, Phase.EXPIRED)
        error = f"sequence timed out after {sequence.timeout_text}"
        for job in jobs:
            if job.state is State.RUNNING:
                job.expired = True
                self._stop_job(job, State.FAIL, error, now, actions)
        self._drained(sequence, now, actions)

    def _end_all(self, mode: _Mode, error: str, now: int, actions: Actions) -> None:
        self._mode = mode
        for sequence in self._parts.sequences.values():
            if sequence.phase is Phase.WAITING:
                sequence.phase = Phase.OPEN
                sequence.generation += 1
        self._waiting_sequences = 0
        for job in self._jobs.values():
            if job.state is State.RUNNING:
                job.expired = job.expired or mode is _Mode.EXPIRED
                self._stop_job(job, State.FAIL if job.expired else State.STOPPED, error, now, actions)

    def _stop_job(self, job: JobPart, state: State, error: str, now: int, actions: Actions) -> None:
        """Stops what a job does: its try by asking, its wait for another one at once."""
        if job.waits:
            job.waits = False
            job.state = state
            self._leave(job, now, actions)
        elif not job.stopping:
            job.stopping = True
            actions.stop.append(Stop(job.id, error))

    def _run_ready(self, jobs: Iterable[JobPart], now: int, actions: Actions) -> None:
        if self._mode is not _Mode.RUNNING:
            return
        for job in jobs:
            if job.state is State.PENDING and not job.missing and not job.sequence.frozen:
                self._run(job, now, actions)

    def _run(self, job: JobPart, now: int, actions: Actions) -> None:
        job.state = State.RUNNING
        if job.id == job.sequence.id and not job.sequence.tries:
            job.sequence.tries = 1
            self._begin_time(job.sequence, now, actions)
        self._enter(job)
        self._run_again(job, actions)

    def _enter(self, job: JobPart) -> None:
        """Counts a job that begins to run into all that it is in."""
        self._running += 1
        sequence: SequencePart | None = job.sequence
        while sequence is not None:
            sequence.active += 1
            if sequence.active > 1:
                return
            sequence = sequence.parent

    def _run_again(self, job: JobPart, actions: Actions) -> None:
        job.waits = False
        job.tries += 1
        job.run_tries += 1
        actions.run.append(Run(job.id, job.tries, max(1, job.sequence.tries)))

    def _leave(self, job: JobPart, now: int, actions: Actions) -> None:
        """Counts a job that has ended out of all that it was in."""
        self._running -= 1
        idle: list[SequencePart] = []
        sequence: SequencePart | None = job.sequence
        while sequence is not None:
            sequence.active -= 1
            if sequence.active:
                break
            idle.append(sequence)
            sequence = sequence.parent
        for part in idle:
            if part.phase is not Phase.OPEN:
                self._drained(part, now, actions)

    def _begin_time(self, sequence: SequencePart, now: int, actions: Actions) -> None:
        if not sequence.timeout or sequence.began is not None:
            return
        sequence.began = now
        left = sequence.timeout - sequence.elapsed
        if left > 0:
            actions.timers.append(Timer(("sequence", sequence.id, sequence.lifetime), left))
        else:  # A chain that goes on may have a sequence whose time is over.
            self._expire(sequence, now, actions)

    def _finish(self, actions: Actions, now: int) -> Actions:
        """Adds to the actions how the chain has ended, if it has."""
        if self._running == 0 and self._waiting_sequences == 0 and self._done is None:
            self._done = self._final_state(now)
            actions.done = self._done
        return actions

    def _final_state(self, now: int) -> State:
        if self._finished == len(self._jobs):
            return State.COMPLETE
        if self._mode is _Mode.STOPPING:
            failed = any(job.state is State.FAIL for job in self._jobs.values())
            return State.FAIL if failed else State.STOPPED
        if self._mode is _Mode.SUSPENDING:
            # A chain in which nothing is left to do has ended, even though it was to be suspended.
            rest = RunningChain.resume(self.suspended(now)).start(now)
            return State.SUSPENDED if rest.done is None else rest.done
        return State.FAIL


def _named(state: int) -> str:
    try:
        return f"{State(state).name} ({state})"
    except ValueError:
        return f"UNKNOWN ({state})"
