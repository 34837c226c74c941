"""The turns of suspects: of the tries that may have killed an earlier runner, one starts at a time."""

from __future__ import annotations

import asyncio


class SuspectTurns:
    """The turns on one runner, in the order in which they are asked for.

    A turn ends when its try ends. After `limit` seconds the next turn may begin although the try still runs,
    because otherwise a crash would make all long jobs wait for each other. So several recorded tries may run
    when a runner dies. Then none of them is blamed, but the next time each must run alone: its turn begins
    after all others have ended, and has no limit.

    Args:
        limit: Seconds of a turn.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._starting = asyncio.Lock()
        self._turns: set[Turn] = set()
        self._none_left = asyncio.Event()
        self._none_left.set()

    async def take(self, *, is_alone: bool) -> Turn:
        """Waits for a turn. The caller must end it."""
        await self._starting.acquire()
        try:
            if is_alone:
                await self._none_left.wait()
        except BaseException:
            self._starting.release()
            raise
        turn = Turn(self, is_shared=bool(self._turns))
        self._turns.add(turn)
        self._none_left.clear()
        if not is_alone:
            turn.expiry = asyncio.get_running_loop().call_later(self._limit, self._let_next, turn)
        return turn

    def end(self, turn: Turn) -> None:
        """Ends a turn. Has no effect if it has ended."""
        if turn not in self._turns:
            return
        self._turns.remove(turn)
        self._let_next(turn)
        if not self._turns:
            self._none_left.set()

    def _let_next(self, turn: Turn) -> None:
        if turn.expiry is not None:
            turn.expiry.cancel()
        if turn.holds_others:
            turn.holds_others = False
            self._starting.release()


class Turn:
    """One turn.

    Attributes:
        is_shared: Whether other turns that began earlier have not ended.
        holds_others: Whether the next turn must wait.
        expiry: Lets the next turn begin after the limit; None if there is no limit.
    """

    def __init__(self, turns: SuspectTurns, *, is_shared: bool) -> None:
        self._turns = turns
        self.is_shared = is_shared
        self.holds_others = True
        self.expiry: asyncio.TimerHandle | None = None

    def end(self) -> None:
        """Ends the turn. Has no effect if it has ended."""
        self._turns.end(self)
