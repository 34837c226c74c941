"""The numbers of several workers become those of one server."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spincycle_server.telemetry import catalogue
from spincycle_server.telemetry.catalogue import CATALOGUE
from spincycle_server.telemetry.instruments import Distribution, Kind, Merge
from spincycle_server.telemetry.limits import CONCURRENT_CALLS, WAITING_REQUESTS
from spincycle_server.telemetry.metrics import ServerMetrics
from spincycle_server.telemetry.metrics_text import Exposition, OtherWorkers
from spincycle_server.telemetry.numbers import Numbers, add_counts, decoded, encoded, merged

SERVER = "request-manager"
ANSWERED = ("Get", "http", "OK")


def numbers(calls: int, seconds: tuple[int, ...], ready: float, **limits: float) -> Numbers:
    buckets = len(catalogue.CALL_SECONDS.buckets) + 1
    return {
        catalogue.CALLS: {(SERVER, *ANSWERED): calls},
        catalogue.CALL_SECONDS: {(SERVER, "Get"): Distribution((*seconds, *[0] * (buckets - 2)), 0.5)},
        catalogue.READY: {(SERVER,): ready},
        catalogue.RUNNERS: {(SERVER, "ready"): calls},
        catalogue.OLDEST_WAITING_SECONDS: {(SERVER,): calls},
        catalogue.LIMIT_USED: {(SERVER, name): used for name, used in limits.items()},
    }


def test_counts_add_up_and_gauges_follow_their_meaning() -> None:
    waiting, calls = WAITING_REQUESTS.name, CONCURRENT_CALLS.name
    own = numbers(5, (1, 2), 1.0, **{waiting: 7, calls: 2})
    other = numbers(6, (3, 0), 0.0, **{waiting: 8, calls: 3})
    ended = numbers(100, (1, 1), 0.0, **{waiting: 99, calls: 99})
    passed_on = decoded(orjson.loads(encoded(other)), own)
    assert passed_on == other
    together = merged(own, [passed_on], [decoded(orjson.loads(encoded(ended)), own)])
    assert together[catalogue.CALLS] == {(SERVER, *ANSWERED): 111}
    [seconds] = together[catalogue.CALL_SECONDS].values()
    assert isinstance(seconds, Distribution)
    assert (seconds.counts[:2], seconds.total) == ((5, 3), 1.5)
    assert together[catalogue.READY] == {(SERVER,): 0.0}
    assert together[catalogue.RUNNERS] == {(SERVER, "ready"): 5}
    assert together[catalogue.OLDEST_WAITING_SECONDS] == {(SERVER,): 6}
    assert together[catalogue.LIMIT_USED] == {(SERVER, waiting): 8, (SERVER, calls): 5}
    assert own == numbers(5, (1, 2), 1.0, **{waiting: 7, calls: 2}), "the own numbers must not change"


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=5))
def test_ended_workers_leave_the_sums_of_their_counts(ended: list[tuple[int, int, int]]) -> None:
    kept: bytes | None = None
    for calls, one, other in ended:
        kept = add_counts(kept, encoded(numbers(calls, (one, other), 1.0)))
    assert kept is not None
    sums = decoded(orjson.loads(kept), {})
    assert sums[catalogue.CALLS] == {(SERVER, *ANSWERED): sum(calls for calls, _, _ in ended)}
    [seconds] = sums[catalogue.CALL_SECONDS].values()
    assert isinstance(seconds, Distribution)
    assert seconds.counts[:2] == (sum(one for _, one, _ in ended), sum(other for _, _, other in ended))
    assert seconds.total == pytest.approx(0.5 * len(ended))


def test_only_gauges_have_a_rule_of_their_own() -> None:
    assert {family.merge for family in CATALOGUE if family.kind is not Kind.GAUGE} == {Merge.SUM}


async def test_the_text_of_a_worker_shows_all_workers() -> None:
    metrics = ServerMetrics(SERVER)
    metrics.read_one(catalogue.DATABASE_UP, lambda: 1.0)
    exposition = Exposition([metrics])
    alone = (await exposition.text()).decode()
    other = orjson.loads(await exposition.numbers())
    exposition.close()

    async def others() -> OtherWorkers:
        return OtherWorkers([other, other], [], 1, 4)

    exposition = Exposition([metrics], others)
    text = (await exposition.text()).decode()
    exposition.close()
    assert 'spincycle_workers{state="answering"} 3.0' in text
    assert 'spincycle_workers{state="silent"} 1.0' in text
    assert "spincycle_replaced_workers_total 4.0" in text
    assert 'spincycle_database_up{server="request-manager"} 1.0' in text
    assert "spincycle_workers{" not in alone
    limits = [_value(one, "process_max_fds ") for one in (alone, text)]
    assert limits[1] == 3 * limits[0]
    starts = [_value(one, "process_start_time_seconds ") for one in (alone, text)]
    assert starts[0] == starts[1]
    types = [{line for line in one.splitlines() if line.startswith("# TYPE")} for one in (alone, text)]
    assert types[0] == types[1]


def _value(text: str, series: str) -> float:
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(series))
