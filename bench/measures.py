"""Measures of a running installation. Each returns figures by name. Times are in seconds."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import grpc.aio
import httpx
import psutil
import uvloop

from bench.http_load import Answers, closed_loop, connect, percentile, request_bytes
from spincycle_grpc.state import State
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub

if TYPE_CHECKING:
    from bench.cluster import Cluster

Figures = dict[str, Any]

PATH = "/api/v1/requests"
END_LIMIT = 300.0
ASLEEP = 2.0
"""Seconds of sampling the runner while all jobs sleep."""

SAMPLE = 2000
"""The number of requests whose recorded times are read."""

_UNFINISHED = f"{PATH}?state=PENDING&state=RUNNING&state=SUSPENDED&limit=1"


def _body(request_type: str, **args: object) -> bytes:
    return json.dumps({"type": request_type, "args": args}).encode()


def throughput(cluster: Cluster, clients: int, seconds: float, request_type: str = "three-jobs") -> Figures:
    """Runs clients that each create one request after another, and waits until all requests have ended.

    `requests_a_second` counts COMPLETE requests over the time until the last one ended.
    """
    data = request_bytes("POST", PATH, cluster.manager.http, _body(request_type))
    before, began = cluster.cpu_seconds(), time.perf_counter()
    answers = uvloop.run(closed_loop(cluster.manager.http, lambda: data, clients=clients, seconds=seconds))
    wait_ended(cluster)
    took = time.perf_counter() - began
    used = cluster.cpu_since(before)
    made = _all_created(answers)
    _check_complete(cluster, made)
    ends = _recorded_seconds(cluster, min(made, SAMPLE))
    return {
        "type": request_type,
        "clients": clients,
        "requests": made,
        "requests_a_second": made / took,
        "create_p50": percentile(answers.seconds, 0.5),
        "create_p99": percentile(answers.seconds, 0.99),
        "complete_p50": percentile(ends, 0.5),
        "complete_p99": percentile(ends, 0.99),
        "cpu_a_request": {name: seconds / max(1, made) for name, seconds in used.items()},
        "memory": memory(cluster),
    }


def grpc_throughput(cluster: Cluster, clients: int, seconds: float) -> Figures:
    """Measures like `throughput`, over gRPC."""
    answers = Answers()

    async def load() -> None:
        end = time.perf_counter() + seconds
        async with grpc.aio.insecure_channel(cluster.manager.grpc) as channel:
            stub = RequestManagerStub(channel)

            async def client() -> None:
                while (began := time.perf_counter()) < end:
                    await stub.Create(CreateRequest(type="three-jobs"), timeout=30)
                    answers.seconds.append(time.perf_counter() - began)

            await asyncio.gather(*(client() for _ in range(clients)))

    began = time.perf_counter()
    uvloop.run(load())
    wait_ended(cluster)
    return {
        "clients": clients,
        "requests": len(answers.seconds),
        "requests_a_second": len(answers.seconds) / (time.perf_counter() - began),
        "create_p50": percentile(answers.seconds, 0.5),
        "create_p99": percentile(answers.seconds, 0.99),
    }


def one_alone(cluster: Cluster, requests: int) -> Figures:
    """Creates one request after another, each when the client has seen the previous one COMPLETE."""
    created: list[float] = []
    completed: list[float] = []
    body = _body("three-jobs")

    async def follow() -> None:
        connection = await connect(cluster.manager.http)
        for _ in range(requests):
            began = time.perf_counter()
            data = request_bytes("POST", PATH, cluster.manager.http, body)
            _, _, answer = await connection.send(data)
            created.append(time.perf_counter() - began)
            look = request_bytes("GET", f"{PATH}/{json.loads(answer)['id']}", cluster.manager.http)
            while True:
                _, _, answer = await connection.send(look)
                if json.loads(answer)["state"] == State.COMPLETE:
                    break
                await asyncio.sleep(0.0005)
            completed.append(time.perf_counter() - began)
        connection.close()

    uvloop.run(follow())
    return {
        "requests": requests,
        "create_p50": percentile(created, 0.5),
        "create_p99": percentile(created, 0.99),
        "complete_p50": percentile(completed, 0.5),
        "complete_p99": percentile(completed, 0.99),
    }


def get_under_load(cluster: Cluster, clients: int, seconds: float) -> Figures:
    """Reads a request again and again while other clients create requests."""
    create = request_bytes("POST", PATH, cluster.manager.http, _body("three-jobs"))
    with httpx.Client(base_url=f"http://{cluster.manager.http}", timeout=30) as http:
        request_id = http.get(f"{PATH}?limit=1").json()[0]["id"]
    look = request_bytes("GET", f"{PATH}/{request_id}", cluster.manager.http)

    async def both() -> Answers:
        _, read = await asyncio.gather(
            closed_loop(cluster.manager.http, lambda: create, clients=clients, seconds=seconds),
            closed_loop(cluster.manager.http, lambda: look, clients=1, seconds=seconds),
        )
        return read

    read = uvloop.run(both())
    read.require(200)
    wait_ended(cluster)
    return {
        "clients": clients,
        "reads": len(read.seconds),
        "get_p50": percentile(read.seconds, 0.5),
        "get_p99": percentile(read.seconds, 0.99),
    }


def fleet(cluster: Cluster, request_type: str, hosts: int) -> Figures:
    """Creates one request with many hosts and waits for its end."""
    names = [f"host-{number:05d}" for number in range(hosts)]
    with httpx.Client(base_url=f"http://{cluster.manager.http}", timeout=END_LIMIT) as http:
        began = time.perf_counter()
        answer = http.post(PATH, json={"type": request_type, "args": {"hosts": names}})
        created = time.perf_counter() - began
        answer.raise_for_status()
        request_id = answer.json()["id"]
        deadline = began + END_LIMIT
        while True:
            found = http.get(PATH, params={"limit": 1}).json()[0]
            if found["id"] == request_id and found["state"] == State.COMPLETE:
                break
            if found["state"] in (State.FAIL, State.STOPPED) or time.perf_counter() > deadline:
                raise RuntimeError(f"the request with {hosts} hosts is not COMPLETE: {found}")
            time.sleep(0.01)
        ran = time.perf_counter() - began - created
    return {
        "type": request_type,
        "hosts": hosts,
        "jobs": found["totalJobs"],
        "create": created,
        "run": ran,
        "microseconds_a_job": 1e6 * (created + ran) / found["totalJobs"],
        "memory": memory(cluster),
    }


def sleepers(cluster: Cluster, jobs: int, milliseconds: int) -> Figures:
    """Runs many sleeping jobs at once. Measures memory and how fast the runner answers meanwhile."""
    before = memory(cluster)
    names = [str(number) for number in range(jobs)]
    with (
        httpx.Client(base_url=f"http://{cluster.manager.http}", timeout=END_LIMIT) as http,
        _Watch(cluster) as watch,
    ):
        answer = http.post(PATH, json={"type": "sleepers", "args": {"hosts": names, "ms": str(milliseconds)}})
        answer.raise_for_status()
        running = 0
        deadline = time.perf_counter() + milliseconds / 1000
        with httpx.Client(base_url=f"http://{cluster.runner.http}", timeout=30) as runner:
            while running < jobs and time.perf_counter() < deadline:
                time.sleep(0.1)
                running = len(runner.get("/api/v1/status/running").json())
        if running < jobs:
            raise RuntimeError(f"only {running} of {jobs} jobs ran at once: use more milliseconds")
        asleep_from = len(watch.delays)
        time.sleep(ASLEEP)
        asleep = watch.delays[asleep_from:]
        wait_ended(cluster)
    return {
        "jobs": jobs,
        "running_at_once": running,
        "memory_before": before,
        "memory": watch.peak,
        "answer_p50": percentile(asleep, 0.5),
        "answer_p99": percentile(asleep, 0.99),
        "answer_max": max(watch.delays),
    }


class _Watch:
    """A context in which a thread samples the runner's answer times and the servers' memory.

    Attributes:
        delays: The duration of each answer in seconds.
        peak: The peak memory of each server in bytes.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._failed: Exception | None = None
        self.delays: list[float] = []
        self.peak = memory(cluster)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if self._failed is not None:
            raise RuntimeError("the runner could not be sampled all the time") from self._failed

    def _look(self) -> None:
        try:
            self._look_until_ended()
        except (httpx.HTTPError, psutil.Error) as error:
            self._failed = error

    def _look_until_ended(self) -> None:
        with httpx.Client(base_url=f"http://{self._cluster.runner.http}", timeout=30) as runner:
            while not self._ended.wait(0.005):
                began = time.perf_counter()
                runner.get("/version")
                self.delays.append(time.perf_counter() - began)
                held = memory(self._cluster)
                self.peak = {name: max(size, held[name]) for name, size in self.peak.items()}


def memory_over(cluster: Cluster, requests: int) -> Figures:
    """Creates many requests. Measures the servers' memory after a fifth of them and after all."""
    held: list[dict[str, int]] = []
    made = 0
    for part in (requests // 5, requests - requests // 5):
        made += create_many(cluster, 64, part)
        held.append(memory(cluster))
    return {"requests": made, "memory_after_a_fifth": held[0], "memory": held[1]}


def create_many(cluster: Cluster, clients: int, requests: int, request_type: str = "three-jobs") -> int:
    """Creates many requests, and waits until all have ended. Returns how many it created."""
    data = request_bytes("POST", PATH, cluster.manager.http, _body(request_type))
    left = iter(range(requests))
    answers = uvloop.run(
        closed_loop(cluster.manager.http, _until(left, data), clients=clients, seconds=END_LIMIT)
    )
    wait_ended(cluster)
    return _all_created(answers)


def _until(left: Any, data: bytes) -> Callable[[], bytes | None]:
    return lambda: data if next(left, None) is not None else None


def _all_created(answers: Answers) -> int:
    """Returns the number of created requests. Raises RuntimeError if there was another answer than 201."""
    answers.require(201)
    return answers.statuses[201]


def _check_complete(cluster: Cluster, made: int) -> None:
    """Raises RuntimeError if a request ended in another state than COMPLETE. All requests must have ended."""
    with httpx.Client(base_url=f"http://{cluster.manager.http}", timeout=60) as http:
        for state in ("FAIL", "STOPPED"):
            if http.get(PATH, params={"state": state, "limit": 1}).json():
                raise RuntimeError(f"some of {made} requests ended {state}")


def memory(cluster: Cluster) -> dict[str, int]:
    """Returns the resident memory of each server in bytes."""
    return {server.name: server.memory() for server in (cluster.manager, cluster.runner)}


def wait_ended(cluster: Cluster, token: str = "") -> None:
    """Waits until all requests have ended.

    Args:
        cluster: The installation.
        token: The API token to send; "" for none.

    Raises:
        RuntimeError: That took longer than END_LIMIT.
    """
    deadline = time.perf_counter() + END_LIMIT
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(base_url=f"http://{cluster.manager.http}", headers=headers, timeout=30) as http:
        while http.get(_UNFINISHED).json():
            if time.perf_counter() > deadline:
                raise RuntimeError(f"requests have not ended in {END_LIMIT:g} s")
            time.sleep(0.01)


def _recorded_seconds(cluster: Cluster, requests: int) -> list[float]:
    """Returns the seconds from creation to end of the newest requests, by their recorded times."""
    with httpx.Client(base_url=f"http://{cluster.manager.http}", timeout=60) as http:
        found = http.get(PATH, params={"limit": max(1, requests)}).json()
    return [
        (datetime.fromisoformat(one["finishedAt"]) - datetime.fromisoformat(one["createdAt"])).total_seconds()
        for one in found
        if one["finishedAt"]
    ]
