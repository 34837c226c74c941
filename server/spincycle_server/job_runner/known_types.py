"""Which job types the runner's job factory knows, of those that Request Managers ask about.

A factory is a function and cannot list its types. So it is asked for a job of each type, in a thread, because
it may block. The job never runs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from spincycle_grpc.v1.runner_reports_pb2 import AskedJobTypes, KnownJobTypes
from spincycle_server.call_threads import CallThreads, NoThreadError

logger = structlog.get_logger(__name__)

MAX_TYPES = 20_000
"""The maximum number of job types about which the factory is asked, and whose answers are kept."""

ANSWER_TIMEOUT = 10.0
"""Seconds that the factory may take for one type before the log says so.

The type counts as unknown until the factory answers.
"""

PACE = 1.0
"""Seconds after which the next type is asked although the factory has not answered yet.

So a few types for which it hangs hardly delay the requests that do not need them.
"""

RETRY_PAUSE = 30.0
"""Seconds after which types are asked again for which there was no thread."""

MAX_HANGING = 16
"""The maximum number of threads in which the factory hangs. Further types are asked when one answers."""


class KnownTypes:
    """The answers of a job factory. Each list of types is asked once.

    Args:
        knows: Returns whether the factory knows a job type. It may block or raise.
        answer_timeout: Seconds that it may take.
    """

    def __init__(self, knows: Callable[[str], bool], *, answer_timeout: float = ANSWER_TIMEOUT) -> None:
        self._knows = knows
        self._answer_timeout = answer_timeout
        self._threads = CallThreads(
            "job-types", 1, max_abandoned=MAX_HANGING, longest_wait=min(PACE, answer_timeout) / 2
        )
        self._answers: dict[str, bool] = {}
        self._asked_version = ""
        self._asking: asyncio.Task[None] | None = None
        self._message = KnownJobTypes()
        self.on_change: Callable[[], None] = lambda: None

    @property
    def message(self) -> KnownJobTypes:
        """What Request Managers are told. A change replaces the message."""
        return self._message

    def ask(self, asked: AskedJobTypes) -> None:
        """Asks the factory about job types in the background, unless it was asked about this list before.

        When it has answered, `message` has the version of the list, and `on_change` is called.
        """
        if asked.version == self._asked_version:
            return
        self._asked_version = asked.version
        if self._asking is not None:
            self._asking.cancel()
        self._asking = asyncio.create_task(self._ask_all(asked.version, asked.types[:MAX_TYPES]))

    async def close(self) -> None:
        """Stops asking."""
        if self._asking is not None:
            self._asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._asking

    async def _ask_all(self, version: str, types: Sequence[str]) -> None:
        if len(self._answers) + len(types) > MAX_TYPES:
            self._answers = {one: self._answers[one] for one in types if one in self._answers}
        slow, not_asked = await self._ask_some(types)
        self._publish(version)
        unknown = [one for one in types if not self._answers.get(one)]
        logger.info("job types asked", types=len(types), unknown=unknown[:20])
        while slow or not_asked:
            await self._log_missing(slow, not_asked)
            if not not_asked:
                return
            await asyncio.sleep(RETRY_PAUSE)
            slow, not_asked = await self._ask_some(not_asked)
            self._publish(version)

    async def _ask_some(self, types: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
        """Asks about types, one after the other.

        Returns:
            The types for which the factory was slow, and may still answer; and those for which there was no
            thread.
        """
        loop = asyncio.get_running_loop()
        slow = []
        for place, job_type in enumerate(types):
            try:
                async with asyncio.timeout(min(PACE, self._answer_timeout)):
                    await self._threads.call(partial(self._ask_one, loop, job_type))
            except TimeoutError:
                slow.append(job_type)
            except (NoThreadError, RuntimeError):
                return slow, types[place:]
        return slow, []

    async def _log_missing(self, slow: Sequence[str], not_asked: Sequence[str]) -> None:
        """Gives slow types the rest of their time, and logs which types have no answer then."""
        if slow:
            await asyncio.sleep(max(0.0, self._answer_timeout - PACE))
        hanging = [one for one in slow if one not in self._answers]
        for types, problem in (
            (hanging, f"no answer within {self._answer_timeout:g} s"),
            (not_asked, "there was no thread to ask in"),
        ):
            if types:
                logger.error(
                    "the job factory did not say whether it knows job types: their requests wait",
                    job_types=types[:20],
                    number=len(types),
                    error=problem,
                )

    def _ask_one(self, loop: asyncio.AbstractEventLoop, job_type: str) -> None:
        """Asks the factory, in a thread. An answer that comes too late is used too."""
        try:
            knows = self._knows(job_type)
        except BaseException as error:  # Whatever it lacks now may exist when a request needs the job.
            logger.warning("the job factory failed for a job type", job_type=job_type, error=repr(error))
            knows = True
        with contextlib.suppress(RuntimeError):  # The loop is closed.
            loop.call_soon_threadsafe(self._answered, job_type, knows)

    def _answered(self, job_type: str, knows: bool) -> None:
        self._answers[job_type] = knows
        if self._message.version == self._asked_version:  # The answer comes late.
            self._publish(self._asked_version)

    def _publish(self, version: str) -> None:
        types = sorted(one for one, knows in self._answers.items() if knows)
        message = KnownJobTypes(version=version, types=types)
        if message != self._message:
            self._message = message
            self.on_change()
