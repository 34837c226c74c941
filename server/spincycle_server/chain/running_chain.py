"""One running chain: it takes events and answers with actions.

The rules are those of the original: when a job runs, what is retried, and how a chain ends. This
project adds three rules for sequences. A failed sequence begins its next try only after all of its
jobs have ended. The sequences in it are reset with it. A sequence without tries left fails the
sequence around it.

Sequences may need keys, see `keys`. The driver begins the tries in them when they hold these.

A `finally` part of a sequence runs once, after the last try of the sequence, whatever ends it: success,
failure, a stop, a timeout, or a sequence around it that begins its next try. Inner parts run first. A part
that fails counts as a failed part of the sequence around it. If it fails after a stop, the chain is FAIL.

A failed try does not change the job's data. A stopped try does not count against the job's retries.
A job between two tries is RUNNING.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Set
from enum import Enum, auto
from typing import Any

from spincycle_grpc.job_paths import path_of, sequence_path_of
from spincycle_grpc.state import State
from spincycle_grpc.trace_context import TraceContext
from spincycle_grpc.v1.job_pb2 import Job, JobChain, SuspendedJobChain
from spincycle_grpc.v1.runner_reports_pb2 import TryReport
from spincycle_server.chain.actions import Actions, Run, Stop, Timer, Wait
from spincycle_server.chain.finals import FinalPart, Finals
from spincycle_server.chain.keys import Hold
from spincycle_server.chain.linked_chain import ChainJob, ChainSequence, LinkedChain, Phase
from spincycle_server.chain.linking import invalid_chain, link_chain
from spincycle_server.chain.progress import Progress, thaw
from spincycle_server.chain.records import replay
from spincycle_server.chain.retrying import start_of
from spincycle_server.chain.suspension import restore, suspended_chain
from spincycle_server.chain.windows import Element, Window


class _Mode(Enum):
    RUNNING = auto()
    PAUSING = auto()
    SUSPENDING = auto()
    STOPPING = auto()
    EXPIRED = auto()


_TIMED = frozenset({_Mode.RUNNING, _Mode.PAUSING})
"""The modes in which tries may still end by themselves, and in which timeouts expire."""

_ENDING = frozenset({_Mode.STOPPING, _Mode.EXPIRED})
"""The modes in which nothing runs any more but `finally` parts."""

_KEEPING = frozenset({_Mode.PAUSING, _Mode.SUSPENDING})
"""The modes in which sequences keep their keys although nothing runs in them."""

_OVER = frozenset({Phase.EXPIRED, Phase.CUT})
"""The phases of sequences that do not go on, and are not complete."""


class RunningChain:
    """The state of one chain. Handling an event takes time linear in the edges of its job.

    Every `now` is in nanoseconds, from one monotonic clock of the driver.

    Attributes:
        jobs: The jobs of the chain message, by id. Their states are those from before the start.
        trace: The trace that the request belongs to; None if it belongs to none.
        has_paths: Whether jobs have paths besides their names.
        progress: What it counts. Only the chain itself changes that.
    """

    def __init__(self, chain: JobChain, linked: LinkedChain) -> None:
        """Use `new`, `resume` or `rebuilt`."""
        self._chain = chain
        self.jobs: Mapping[str, Job] = chain.jobs  # Each look at the field makes a new object.
        self.trace = TraceContext.of(chain)
        self.has_paths = bool(chain.path_labels)
        self._linked = linked
        self._jobs = linked.jobs
        self._mode = _Mode.RUNNING
        self.progress = Progress()
        self._finals = Finals(linked.finals)
        self._keys = linked.keys
        self._has_keys = bool(linked.keys.holds)
        self._began: int | None = None
        self._elapsed = 0
        self._done: State | None = None

    @classmethod
    def new(cls, chain: JobChain) -> RunningChain:
        """Returns a chain that has not run.

        Raises:
            InvalidArgumentError: The chain is invalid, or a job is not PENDING. Reason: INVALID_JOB_CHAIN.
        """
        running = cls(chain, link_chain(chain))
        if begun := running._linked.marked.begun:
            job = running.jobs[begun[0]]
            raise invalid_chain(
                f"invalid job state for new job chain: {_named(job.state)}, "
                f"job {job.name} (ID {job.id}); all job states must be PENDING",
                chain.request_id,
            )
        return running

    @classmethod
    def resume(cls, suspended: SuspendedJobChain) -> RunningChain:
        """Returns a chain that continues where it was suspended.

        Raises:
            InvalidArgumentError: The chain is invalid, or its counters do not fit it. Reason:
                INVALID_JOB_CHAIN.
        """
        chain = suspended.job_chain
        running = cls(chain, link_chain(chain))
        running.progress.finished = restore(suspended, running._linked)
        running._count_tasks()
        running._elapsed = suspended.elapsed_ms * 1_000_000
        return running

    @classmethod
    def rebuilt(
        cls,
        chain: JobChain,
        records: Iterable[tuple[int, TryReport]],
        *,
        base: SuspendedJobChain | None = None,
    ) -> RunningChain:
        """Returns a chain that continues after its recorded tries.

        Args:
            chain: The chain as created.
            records: The finished tries in the order in which they were committed, each with the epoch
                of its assignment.
            base: The suspended chain that the first of these tries continued; None if they began with
                the chain as created, of which jobs may be COMPLETE.

        Raises:
            InvalidArgumentError: The chain is invalid, or a record has an unknown job. Reason:
                INVALID_JOB_CHAIN.
        """
        if base is None and chain.finished_jobs:
            base = start_of(chain)
        running = cls(chain, link_chain(chain)) if base is None else cls.resume(base)
        running.progress.finished, elapsed = replay(running._linked, records, chain.request_id)
        running._count_tasks()
        running._elapsed += elapsed
        return running

    def release(self) -> None:
        """Frees memory that would wait for the garbage collector, when the chain has ended.

        Afterwards, it still knows its jobs and their states, and what it has counted, but takes no events.
        """
        self._linked.release()

    @property
    def request_id(self) -> str:
        """The id of the chain's request."""
        return self._chain.request_id

    @property
    def approvals(self) -> Set[str]:
        """The ids of the jobs that wait for an approval."""
        return self._linked.marked.approvals

    def path_of(self, job_id: str) -> tuple[str, ...]:
        """Returns the path of a job, for people; () if its name says as much."""
        return path_of(self._chain, job_id) if self.has_paths else ()

    def sequence_of(self, job_id: str) -> str:
        """Returns the id of the sequence of a job; "" for none."""
        return self._jobs[job_id].sequence.id

    def sequence_path_of(self, sequence_id: str) -> tuple[str, ...]:
        """Returns the path of a sequence, for people; () if the chain has no paths."""
        return sequence_path_of(self._chain, sequence_id) if self.has_paths else ()

    @property
    def finished_jobs(self) -> int:
        """How many jobs are COMPLETE."""
        return self.progress.finished

    def is_task(self, job_id: str) -> bool:
        """Returns whether a job does more than to connect other jobs."""
        return self._jobs[job_id].is_task

    @property
    def must_be_recorded(self) -> Set[str]:
        """The ids of the jobs after which the chain waits until their tries are recorded, even noops.

        They are the first jobs of the sequences that have a `finally` part, and of these parts: their records
        say that the chain owes the part, or that the part has begun.
        """
        parts = self._linked.finals
        return {job.id for part in parts for job in (part.body_first, part.first)} if parts else frozenset()

    def _count_tasks(self) -> None:
        done = (job for job in self._jobs.values() if job.state is State.COMPLETE)
        self.progress.finished_tasks = sum(job.is_task for job in done)

    @property
    def done(self) -> State | None:
        """The final state of the chain, or SUSPENDED; None while it continues."""
        return self._done

    def state_of(self, job_id: str) -> State:
        """Returns the state of a job. A job between two tries is RUNNING."""
        return self._jobs[job_id].state

    def waits(self, job_id: str) -> bool:
        """Returns whether a job is between two tries."""
        return self._jobs[job_id].waits

    def tries_of(self, job_id: str) -> int:
        """Returns the number of tries of a job over the whole request, including the running try."""
        return self._jobs[job_id].tries

    def sequence_tries_of(self, job_id: str) -> tuple[int, ...]:
        """Returns the tries of all sequences around a job, the innermost first.

        A try that left no record has its number again. If these numbers have changed since, it belongs to
        another try of a sequence.
        """
        return tuple(max(1, sequence.tries) for sequence in self._jobs[job_id].sequence.outwards())

    def next_try(self, job_id: str) -> Run | None:
        """Returns the next try of a job that has not begun; None for a COMPLETE or an unknown job."""
        job = self._jobs.get(job_id)
        if job is None or job.state is State.COMPLETE:
            return None
        return Run(job.id, job.tries + 1, job.sequence.tries or 1)

    def fails_request(self, job_id: str, *, is_last: bool) -> bool:
        """Returns whether a failed try of a job makes the request FAIL although it is being stopped.

        So it is with a job of a `finally` part that is not tried again. Whoever stores the try must note it.
        The tries alone do not tell whether the part failed before the stop, when a sequence around it would
        have been tried again.
        """
        job = self._jobs[job_id]
        final = job.sequence.in_final
        if self._mode not in _ENDING or final is None:
            return False
        if job.run_tries <= job.retry and not is_last and not job.expired:
            return False
        return final.fails_with(job.sequence)

    def keys_around(self, job_id: str) -> tuple[Hold, ...]:
        """Returns the sequences around a job that need keys before a try begins, the outermost first."""
        return self._jobs[job_id].sequence.holds

    def keys_of(self, sequence_id: str) -> Hold:
        """Returns the keys of a sequence that was to claim or to release them."""
        return self._keys.holds[sequence_id]

    @property
    def has_keys(self) -> bool:
        """Whether sequences of the chain need keys."""
        return self._has_keys

    def data_of(self, job_id: str) -> dict[str, Any]:
        """Returns the data that a job starts with. The caller must not change it."""
        return self._jobs[job_id].data

    def start(self, now: int, *, ending: State | None = None) -> Actions:
        """Starts or continues the chain. Call it once, before all other events.

        Args:
            now: The current time.
            ending: FAIL or STOPPED if the chain is to end so, after the `finally` parts that it owes.
                None: it goes on.
        """
        actions = Actions()
        self._began = now
        if ending is State.FAIL or self._has_timed_out:
            self._mode = _Mode.EXPIRED
        elif ending is not None:
            self._mode = _Mode.STOPPING
        elif self._linked.timeout:
            actions.timers.append(Timer(("request", "", 0), self._linked.timeout - self._elapsed))
        if self._linked.windows:
            self._hold_elements()
        if self._linked.finals:
            self._owe_finals(self._linked.finals)
        for sequence in self._linked.sequences.values():
            if sequence.tries and not sequence.frozen:
                self._begin_timeout(sequence, now, actions)
        self._continue(now, actions)
        if self._has_keys:
            actions.claim += self._keys.use_again(without_finals=self._finals.are_skipped)
        return self._finish(actions, now)

    def try_finished(
        self,
        job_id: str,
        state: State,
        now: int,
        *,
        data: Mapping[str, Any] | None = None,
        is_last: bool = False,
        is_taken_back: bool = False,
    ) -> Actions:
        """Handles the end of a try.

        A try that was told to stop ends as STOPPED, or as COMPLETE if it completed first. It ends as
        FAIL if it failed before, if it did not stop, or if a timeout was the reason for the stop. Only if it
        failed before, the job could be tried again.

        Args:
            job_id: A job with a running try.
            state: How the try ended. Every state except COMPLETE and STOPPED counts as FAIL.
            now: The current time.
            data: The job's data after a COMPLETE try.
            is_last: Do not retry the failed job, whatever its `retry` is.
            is_taken_back: The try is STOPPED because a pause kept it from beginning. If the pause is over,
                the job runs.

        Raises:
            ValueError: The job has no running try.
        """
        job = self._jobs[job_id]
        if job.state is not State.RUNNING or job.waits:
            raise ValueError(f"job {job_id} has no running try")
        actions = Actions()
        job.stopping = False
        if job.expired or state not in (State.COMPLETE, State.STOPPED):
            self._finals.has_failed |= self.fails_request(job_id, is_last=is_last)
        if state is State.COMPLETE:
            self._run_ready(self.progress.complete(job, data), now, actions)
        elif job.expired:
            job.state = State.FAIL
        elif state is State.STOPPED:
            job.state = State.STOPPED
            job.run_tries -= 1
            job.try_stopped = True
        else:
            self._fail(job, actions, can_retry=not is_last)
        if job.state is State.STOPPED and is_taken_back and self._mode is _Mode.RUNNING:
            # Otherwise a resume soon after a pause would let the chain fail.
            job.state = State.PENDING
            self._run_ready((job,), now, actions)
            self._leave(job, now, actions)
        elif job.state is not State.RUNNING:
            self._leave(job, now, actions)
        return self._finish(actions, now)

    def wait_over(self, key: tuple[str, str, int], now: int) -> Actions:
        """Handles the end of a wait. Stale waits have no effect."""
        actions = Actions()
        kind, part_id, number = key
        if kind == "job":
            job = self._jobs[part_id]
            if job.waits and job.tries == number:
                self._run_again(job, actions)
        else:
            sequence = self._linked.sequences[part_id]
            if sequence.phase is Phase.WAITING and sequence.generation == number:
                self.progress.end_wait(sequence)
                self._reopen(sequence, now, actions)
        return self._finish(actions, now)

    def timer_over(self, key: tuple[str, str, int], now: int) -> Actions:
        """Handles the timeout of a sequence or of the request. Stale timers have no effect."""
        actions = Actions()
        kind, part_id, number = key
        if self._done is not None:
            pass
        elif kind == "sequence":
            sequence = self._linked.sequences[part_id]
            if sequence.lifetime == number and (self._mode in _TIMED or self._goes_on(sequence)):
                self._expire(sequence, now, actions)
        elif self._mode in _TIMED:
            self._end_all(_Mode.EXPIRED, f"request timed out after {self._chain.timeout}", now, actions)
        return self._finish(actions, now)

    def stop(self, now: int, *, skip_finally: bool = False) -> Actions:
        """Stops the chain for good: no try starts any more, and running tries are stopped.

        The `finally` parts that the chain owes go on, or run next. If the chain is being suspended, whoever
        continues it runs them.

        The chain ends as FAIL if a job has failed for good. A job that would have been tried again, by itself
        or with its sequence, has not. So the records of the tries decide, and a chain that is rebuilt from
        them ends in the same way.

        Args:
            now: The current time.
            skip_finally: Stop the `finally` parts too, also those of a chain that ends already.
        """
        if self._began is None and self._finals and not skip_finally:
            return self.start(now, ending=State.STOPPED)
        actions = Actions()
        if self._mode is _Mode.SUSPENDING and self._finals.are_owed and not skip_finally:
            return self._finish(actions, now)  # Whoever continues the chain runs them.
        was_pausing = self._mode is _Mode.PAUSING
        if self._done is None and (self._mode is not _Mode.EXPIRED or skip_finally):
            is_over = self._mode is _Mode.EXPIRED or (self._began is None and self._has_timed_out)
            self._finals.are_skipped |= skip_finally
            self._end_all(_Mode.EXPIRED if is_over else _Mode.STOPPING, "", now, actions)
            if was_pausing and self._finals:
                self._begin_anew(part for part in self._linked.sequences.values() if part.in_final)
                self._continue(now, actions)
        return self._finish(actions, now)

    @property
    def _has_timed_out(self) -> bool:
        """Whether the time of the chain was over before this assignment."""
        return 0 < self._linked.timeout <= self._elapsed

    def suspend(self, now: int, *, not_begun: Iterable[str] = ()) -> Actions:
        """Stops the chain so that it can be resumed.

        After `stop` or a timeout, it has an effect only if the chain owes `finally` parts. Start such a chain
        again with the state in which it is to end.

        Args:
            now: The current time.
            not_begun: As for `pause`.
        """
        actions = Actions()
        if self.can_suspend:
            self._mode = _Mode.SUSPENDING
            self._take_back(not_begun, now, actions)
            self._end_all(_Mode.SUSPENDING, "", now, actions)
        return self._finish(actions, now)

    def pause(self, now: int, *, not_begun: Iterable[str] = ()) -> Actions:
        """Lets running tries end and starts no others. Then the chain is SUSPENDED, unless it has ended.

        Timeouts go on until then, because otherwise a job that hangs could not be stopped by them. Has no
        effect after `suspend`, `stop` or a timeout.

        Args:
            now: The current time.
            not_begun: Jobs whose try the driver was told to run and has not begun, or that waits for an
                approval. It must not go on with it, and the try does not count.
        """
        actions = Actions()
        if self.can_pause:
            self._mode = _Mode.PAUSING
            self._end_waits(now, actions)
            self._take_back(not_begun, now, actions)
        return self._finish(actions, now)

    def _take_back(self, not_begun: Iterable[str], now: int, actions: Actions) -> None:
        for job_id in not_begun:
            job = self._jobs[job_id]
            job.state = State.PENDING
            job.tries -= 1
            job.run_tries -= 1
            self._leave(job, now, actions)

    def unpause(self, now: int) -> Actions:
        """Continues a chain that was told to pause, if it has not left its driver yet.

        Waits for a next try are over, as when a suspended chain is resumed.
        """
        actions = Actions()
        if self._done is None and self._mode is _Mode.PAUSING:
            self._mode = _Mode.RUNNING
            self._keys.touch_all()
            self._begin_anew(self._linked.sequences.values())
            self._continue(now, actions)
        return self._finish(actions, now)

    def _begin_anew(self, parts: Iterable[ChainSequence]) -> None:
        """Lets the jobs run that a pause has stopped."""
        for part in parts:
            for job in part.jobs:
                if job.state is State.STOPPED:
                    job.state = State.PENDING
        for window in self._linked.windows:
            window.is_counted = False
        self._owe_finals(self._finals)

    @property
    def can_suspend(self) -> bool:
        """Whether `suspend` has an effect."""
        if self._done is not None:
            return False
        return self._mode in _TIMED or (
            self._mode in _ENDING and not self._finals.are_skipped and self._finals.are_owed
        )

    @property
    def owes_finally(self) -> bool:
        """Whether `finally` parts must still run, or run, before the chain may end."""
        return self._finals.are_owed

    @property
    def can_pause(self) -> bool:
        """Whether `pause` has an effect."""
        return self._done is None and self._mode is _Mode.RUNNING

    @property
    def is_pausing(self) -> bool:
        """Whether the chain was told to pause and continues only with running tries."""
        return self._done is None and self._mode is _Mode.PAUSING

    def suspended(self, now: int) -> SuspendedJobChain:
        """Returns the message to resume the chain from, at any time. Running tries count as not begun."""
        elapsed = self._elapsed + (now - self._began if self._began is not None else 0)
        return suspended_chain(self._chain, self._linked, self.progress.finished, now, elapsed)

    def _continue(self, now: int, actions: Actions) -> None:
        """Goes on with everything that follows from the states of the jobs."""
        for job in self._jobs.values():
            if job.state is State.FAIL:
                self._fail_sequence(job.sequence)
        for final in self._linked.finals:
            if final.body.phase is Phase.CUT:
                self._fail_sequence(final.sequence.parent)
        for sequence in self._linked.sequences.values():
            if sequence.phase is not Phase.OPEN:
                self._continue_if_idle(sequence, now, actions)
        self._run_ready(self._jobs.values(), now, actions)
        inner_first = deque(self._linked.finals)
        for window in self._linked.windows:
            while inner_first and inner_first[0].sequence.depth > window.sequence.depth:
                self._notice_end_of(inner_first.popleft(), now, actions)  # A window counts what has ended.
            window.recount()
            self._advance(window, now, actions)
        for final in inner_first:
            self._notice_end_of(final, now, actions)
        if self._linked.finals:
            self._finals.all_bodies_ended()

    def _notice_end_of(self, final: FinalPart, now: int, actions: Actions) -> None:
        """Continues with the sequences around a `finally` part, if that was over before."""
        if final.has_begun and self._goes_on(final.sequence):
            self._finals.part_ended(final)
            for part in final.sequence.outwards():
                self._continue_if_idle(part, now, actions)

    def _goes_on(self, part: ChainSequence) -> bool:
        """Whether jobs of a sequence may start. While the chain ends, those of `finally` parts may."""
        if self._mode is _Mode.RUNNING:
            return True
        return part.in_final is not None and self._mode in _ENDING and not self._finals.are_skipped

    def _owe_finals(self, finals: Iterable[FinalPart]) -> None:
        """Finds which of some `finally` parts a chain owes that has run before, and ends what they follow."""
        for final in self._finals.owe_again(finals):
            self._cut(final.body)

    def _run_due_finals(self, now: int, actions: Actions) -> None:
        while due := self._finals.due():  # A part that begins can end what other parts follow.
            for final in due:
                if not self._goes_on(final.sequence):
                    continue
                if final.first.missing:
                    self._cut(final.body)
                    self._continue_if_idle(final.body, now, actions)
                self._run(final.first, now, actions)

    def _cut(self, body: ChainSequence) -> None:
        """Keeps the jobs of a sequence from running beside or after its `finally` part."""
        self.progress.freeze(body, body.phase if body.phase is Phase.EXPIRED else Phase.CUT)

    def _hold_elements(self) -> None:
        """Holds the elements of which an earlier request has run a part, until they may begin."""
        for window in self._linked.windows:
            for element in window.elements:
                sequence = element.sequence
                if sequence is not None and element.may_be_held:
                    self.progress.freeze(sequence, Phase.HELD)
                elif element.is_sequence and not element.has_begun:
                    element.first.sequence.tries = 0  # Its first try was lost while it began.
                    element.first.sequence.elapsed = 0

    def _advance(self, window: Window, now: int, actions: Actions) -> None:
        """Begins the elements that may begin."""
        if not self._goes_on(window.sequence) or window.sequence.frozen:
            return
        for element in window.to_begin():
            sequence = element.sequence
            if sequence is None or not element.is_held:
                self._run(element.first, now, actions)
                continue
            thaw(sequence)
            if self._finals:
                self._owe_finals(part.final for part in sequence.subtree() if part.final is not None)
            for part in sequence.subtree():
                if part.tries and not part.frozen:
                    self._begin_timeout(part, now, actions)
            for part in sequence.subtree():
                self._run_ready(part.jobs, now, actions)
                for inner in part.windows:
                    self._advance(inner, now, actions)

    def _look_at(self, element: Element, now: int, actions: Actions) -> None:
        element.window.look_at(element)
        self._advance(element.window, now, actions)

    def _fail(self, job: ChainJob, actions: Actions, *, can_retry: bool) -> None:
        if not can_retry or job.run_tries > job.retry:
            job.state = State.FAIL
            if self._goes_on(job.sequence):
                self._fail_sequence(job.sequence)
        elif not self._goes_on(job.sequence):
            job.state = State.STOPPED
        elif job.retry_wait.first:
            job.waits = True
            wait = job.retry_wait.before(job.run_tries, job.id)
            actions.wait.append(Wait(("job", job.id, job.tries), wait))
        else:
            self._run_again(job, actions)

    def _fail_sequence(self, sequence: ChainSequence | None) -> None:
        """Drains the innermost sequence that has tries left, unless one is already frozen."""
        while sequence is not None and not sequence.frozen:
            if sequence.tries <= sequence.retry:
                self.progress.freeze(sequence, Phase.DRAINING)
                if self._has_keys:
                    self._keys.drained.append(sequence)
                self._finals.bodies_ended(sequence.without_finals())
                return
            sequence = sequence.parent

    def _continue_if_idle(self, sequence: ChainSequence, now: int, actions: Actions) -> None:
        """Continues with a draining or expired sequence once no job and no `finally` part in it runs."""
        while sequence.phase in _OVER and not sequence.active and sequence.parent is not None:
            if sequence.is_complete():  # Its last job completed while it was being stopped.
                thaw(sequence)
                return
            if not sequence.parent.frozen:
                self._fail_sequence(sequence.parent)
            sequence = next(
                (one for one in sequence.outwards() if one.phase is Phase.DRAINING), sequence.parent
            )
        if sequence.phase is not Phase.DRAINING or sequence.active or not self._goes_on(sequence):
            return
        if sequence.owed or (sequence.parent is not None and sequence.parent.frozen):
            return
        self.progress.reset(sequence)
        if sequence.retry_wait.first:
            self.progress.begin_wait(sequence)
            wait = sequence.retry_wait.before(sequence.tries - 1, sequence.id)
            actions.wait.append(Wait(("sequence", sequence.id, sequence.generation), wait))
        else:
            self._reopen(sequence, now, actions)

    def _reopen(self, sequence: ChainSequence, now: int, actions: Actions) -> None:
        """Runs a sequence again after it was reset."""
        thaw(sequence)
        for part in sequence.subtree():
            self._run_ready(part.jobs, now, actions)

    def _expire(self, sequence: ChainSequence, now: int, actions: Actions) -> None:
        """Stops a sequence that has timed out, unless it is complete."""
        if sequence.phase in _OVER or sequence.is_complete():
            return
        # A part that waits for its next try ends without a try that `fails_request`.
        self._finals.has_failed |= sequence.is_final_part and self._mode in _ENDING
        jobs = [job for part in sequence.without_finals() for job in part.jobs]
        self.progress.freeze(sequence, Phase.EXPIRED)
        self._finals.bodies_ended(sequence.without_finals())
        error = f"sequence timed out after {sequence.timeout_text}"
        for job in jobs:
            if job.state is State.RUNNING:
                job.expired = True
                self._stop_job(job, State.FAIL, error, now, actions)
        self._continue_if_idle(sequence, now, actions)
        for part in sequence.outwards():
            if part.element is not None:
                self._look_at(part.element, now, actions)

    def _end_all(self, mode: _Mode, error: str, now: int, actions: Actions) -> None:
        self._mode = mode
        self._keys.touch_all()
        self._end_sequence_waits()
        self._finals.all_bodies_ended()
        for job in self._jobs.values():
            if job.state is State.RUNNING and not self._goes_on(job.sequence):
                job.expired = job.expired or (mode is _Mode.EXPIRED and not self._finals.are_skipped)
                self._stop_job(job, State.FAIL if job.expired else State.STOPPED, error, now, actions)

    def _end_waits(self, now: int, actions: Actions) -> None:
        """Ends all waits for next tries, of jobs and of sequences."""
        self._end_sequence_waits()
        for job in self._jobs.values():
            if job.waits:
                self._stop_job(job, State.STOPPED, "", now, actions)

    def _end_sequence_waits(self) -> None:
        for sequence in self._linked.sequences.values():
            if sequence.phase is Phase.WAITING and not self._goes_on(sequence):
                self.progress.end_wait(sequence)
                thaw(sequence)

    def _stop_job(self, job: ChainJob, state: State, error: str, now: int, actions: Actions) -> None:
        """Stops a job: asks a running try to stop, and ends a wait for the next try at once."""
        if job.waits:
            job.waits = False
            job.state = state
            self._leave(job, now, actions)
        elif not job.stopping or self._mode is _Mode.STOPPING:
            job.stopping = True
            actions.stop.append(Stop(job.id, error, is_final=self._mode is _Mode.STOPPING))

    def _run_ready(self, jobs: Iterable[ChainJob], now: int, actions: Actions) -> None:
        all_go_on = self._mode is _Mode.RUNNING
        if not all_go_on and not (self._finals and self._mode in _ENDING):
            return
        for job in jobs:
            if job.state is State.PENDING and not job.missing and not job.sequence.frozen:
                if not (all_go_on or self._goes_on(job.sequence)):
                    continue
                element = job.element
                if element is None or element.first is not job or element.has_begun:
                    self._run(job, now, actions)
                else:
                    self._advance(element.window, now, actions)

    def _run(self, job: ChainJob, now: int, actions: Actions) -> None:
        job.state = State.RUNNING
        if job.id == job.sequence.id:
            final = job.sequence.final
            if final is not None and not final.has_begun:  # After a job STOPPED by itself, it may have run.
                final.owe()
            if not job.sequence.tries:
                job.sequence.tries = 1
                self._begin_timeout(job.sequence, now, actions)
        self.progress.enter(job)
        self._run_again(job, actions)

    def _run_again(self, job: ChainJob, actions: Actions) -> None:
        job.waits = job.try_stopped = False
        job.tries += 1
        job.run_tries += 1
        if job.sequence.holds:
            actions.claim += self._keys.use(job.sequence.holds)
        actions.run.append(Run(job.id, job.tries, job.sequence.tries or 1))

    def _leave(self, job: ChainJob, now: int, actions: Actions) -> None:
        """Stops counting a job that has ended, and continues with the sequences that waited for its end."""
        idle = self.progress.leave(job)
        if job.element is not None:
            self._look_at(job.element, now, actions)
        for part in idle:
            if part.in_final is not None and part.is_final_part and self._goes_on(part):
                self._finals.part_ended(part.in_final)
            elif part.final is not None:
                self._finals.body_ended(part)
            if part.phase is not Phase.OPEN:
                self._continue_if_idle(part, now, actions)
            if part.element is not None:
                self._look_at(part.element, now, actions)

    def _begin_timeout(self, sequence: ChainSequence, now: int, actions: Actions) -> None:
        if not sequence.timeout or sequence.began is not None:
            return
        sequence.began = now
        left = sequence.timeout - sequence.elapsed
        if left > 0:
            actions.timers.append(Timer(("sequence", sequence.id, sequence.lifetime), left))
        else:  # A resumed chain may have a sequence whose timeout has already passed.
            self._expire(sequence, now, actions)

    def _finish(self, actions: Actions, now: int) -> Actions:
        """Begins due `finally` parts, and gives up keys. Adds the final state if the chain has ended."""
        if self._linked.finals and self._done is None:
            self._run_due_finals(now, actions)
        if self._has_keys and self._done is None:
            actions.unneeded += self._keys.unneeded()
            actions.release += self._keys.given_up(
                is_kept=self._mode in _KEEPING, without_finals=self._finals.are_skipped
            )
        if self.progress.running == 0 and self.progress.waiting_sequences == 0 and self._done is None:
            self._done = self._final_state(now)
            actions.done = self._done
        return actions

    def _final_state(self, now: int) -> State:
        if self.progress.finished == len(self._jobs):
            return State.COMPLETE
        if self._mode is _Mode.STOPPING:
            failed = self._finals.has_failed or any(map(_has_failed_for_good, self._jobs.values()))
            return State.FAIL if failed else State.STOPPED
        if self._mode in (_Mode.SUSPENDING, _Mode.PAUSING):
            # A chain with nothing left to do has ended, although it was told to suspend.
            rest = RunningChain.resume(self.suspended(now)).start(now)
            return State.SUSPENDED if rest.done is None else rest.done
        return State.FAIL


def _has_failed_for_good(job: ChainJob) -> bool:
    """Whether a job has failed, and no sequence around it would be tried again."""
    if job.state is not State.FAIL:
        return False
    sequence: ChainSequence | None = job.sequence
    while sequence is not None:
        is_over = sequence.phase is Phase.EXPIRED or 0 < sequence.timeout <= sequence.elapsed
        if sequence.tries <= sequence.retry and not is_over:
            return False
        sequence = sequence.parent
    return True


def _named(state: int) -> str:
    try:
        return f"{State(state).name} ({state})"
    except ValueError:
        return f"UNKNOWN ({state})"
