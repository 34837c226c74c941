"""Instruments: plain numbers that a room counts, and that a scrape reads.

A counter is an int with an attribute, not a lock and a look-up, because some of them count several times in
each call. So each instrument is changed by one thread alone. A scrape reads it in another thread, which is
safe: it sees each number before or after a change.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, NamedTuple, TypeAlias, TypeVar

OTHER = "other"
"""The value of a label that stands for all values beyond a limit, or that nobody has declared."""

MAX_NAMES = 100
"""The maximum number of request types, and of job types, that have series of their own."""


class Kind(Enum):
    """What the numbers of a family are."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Merge(Enum):
    """How the numbers that several workers have for one gauge become one number.

    Counters and histograms add up.

    Attributes:
        SUM: They add up, as connections do.
        MAX: The largest counts, for example because each worker looks at the same database.
        MIN: The smallest counts, for example because all workers must be ready.
        OWN: The worker that is asked answers, because all of them describe the same things.
        BY_LIMIT: `Limit.is_shared` decides between MAX and SUM.
    """

    SUM = "sum"
    MAX = "max"
    MIN = "min"
    OWN = "own"
    BY_LIMIT = "by limit"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its name and its meaning. `catalogue` has all of them.

    Attributes:
        name: The name, with its unit. The name of a counter ends in `_total`.
        kind: What its numbers are.
        meaning: One sentence for people who read a dashboard.
        labels: The names of its labels, without `server`, which every server adds.
        buckets: The upper bounds of a histogram, ascending.
        of_process: Whether all servers of a process share it, so that it has no label `server`.
        merge: How the numbers of several workers become one.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    of_process: bool = False
    merge: Merge = Merge.SUM


class Distribution(NamedTuple):
    """The value of a histogram: how many observations each bucket has, not cumulated, and their sum."""

    counts: tuple[int, ...]
    total: float


Value: TypeAlias = float | Distribution


class Sample(NamedTuple):
    """One number, or one histogram, with the values of the labels."""

    labels: tuple[str, ...]
    value: Value


class Counter:
    """A number that only grows. One thread changes it.

    Attributes:
        is_used: Whether a scrape shows it. A counter is shown at 0 too, so that its first step is seen.
    """

    __slots__ = ("value",)
    is_used = True

    def __init__(self, _: Family) -> None:
        self.value = 0

    def read(self) -> Value:
        """Returns the number."""
        return self.value


class Histogram:
    """Counts observations in buckets. One thread observes."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, family: Family) -> None:
        self._bounds = family.buckets
        self._counts = [0] * (len(family.buckets) + 1)
        self._total = 0.0

    @property
    def is_used(self) -> bool:
        """Whether anything was observed."""
        return any(self._counts)

    def observe(self, value: float) -> None:
        """Counts a value. A negative one, which a clock that was set back can make, counts as zero."""
        if value < 0.0:  # noqa: PLR1730 (a call of max takes longer than the rest)
            value = 0.0
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def read(self) -> Value:
        """Returns the counts and the sum."""
        return Distribution(tuple(self._counts), self._total)


_Instrument = TypeVar("_Instrument", Counter, Histogram)


class _Series(Generic[_Instrument]):
    """The instruments of a family, one for each combination of label values."""

    def __init__(self, family: Family, make: Callable[[Family], _Instrument]) -> None:
        self.family = family
        self._make: Callable[[Family], _Instrument] = make
        self._instruments: dict[tuple[str, ...], _Instrument] = {}

    def of(self, *labels: str) -> _Instrument:
        """Returns the instrument of label values. Keep it where something is counted often.

        The caller bounds the values: each new combination is kept for as long as the process lives.
        """
        found = self._instruments.get(labels)
        if found is None:
            found = self._instruments[labels] = self._make(self.family)
        return found

    def samples(self) -> Iterable[Sample]:
        """Returns the numbers. May be called in any thread."""
        # list() of a dict's items is one step for the interpreter, so no other thread can come in between.
        return [Sample(labels, one.read()) for labels, one in list(self._instruments.items()) if one.is_used]


class Counters(_Series[Counter]):
    """The counters of a family."""

    def __init__(self, family: Family) -> None:
        super().__init__(family, Counter)


class Histograms(_Series[Histogram]):
    """The histograms of a family."""

    def __init__(self, family: Family) -> None:
        super().__init__(family, Histogram)


Instruments: TypeAlias = Counters | Histograms


class BoundedNames:
    """The names that may become values of a label. All others are shown as OTHER.

    So neither a stranger nor a large installation can create series without end.

    Args:
        limit: The maximum number of names.
    """

    def __init__(self, limit: int = MAX_NAMES) -> None:
        self._limit = limit
        self._names: set[str] = set()

    def allow(self, names: Iterable[str]) -> None:
        """Adds names, until the limit is reached."""
        for name in names:
            if len(self._names) >= self._limit:
                return
            self._names.add(name)

    def label(self, name: str) -> str:
        """Returns the name if it was allowed, otherwise OTHER."""
        return name if name in self._names else OTHER
