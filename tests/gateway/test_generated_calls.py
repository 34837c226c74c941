"""Calls generated from the OpenAPI documents: no call gets a 500, and all answers match the documents.

The documents do not say which requests and specs exist. `narrowed` adds some, so that not all calls get 404.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.processes import ServerProcess, running
from tests.limits import ANSWER, COMMAND
from tests.reference.recordings import exchange

TYPES = ["nap", "diamond", "cond", "nosuch", ""]
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "negative_data_rejection",
]
SEED = 1012
CONFIG = """
[phases.fuzzing]
generation.max-examples = 10
[phases.stateful]
generation.max-examples = 25
"""
"""Random examples take most of the time of a run, so there are few. The phase "coverage" already sends every
kind of valid and invalid value to every operation. 25 scenarios of calls follow as many links as 40."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    environment = {"SPINCYCLE_CLUSTER_OPEN": "true"}
    directory = tmp_path_factory.mktemp("generated")
    with running("server", "--http=127.0.0.1:0", directory=directory, environment=environment) as server:
        server.wait_for("runner reports")
        yield server


@pytest.fixture(scope="module")
def ids(server: ServerProcess) -> dict[str, list[str]]:
    """Ids that exist: of two requests, of which one is running, and of their jobs."""
    with httpx.Client(base_url=f"http://{server.address('request-manager', 'http')}/api/v1") as client:
        bodies = [{"type": "diamond"}, {"type": "nap", "args": {"ms": "3600000"}}]
        made = [client.post("/requests", json=body).json()["id"] for body in bodies]
        jobs = [job for one in made for job in client.get(f"/requests/{one}/job-chain").json()["jobs"]]
    requests = [*made, json.loads(exchange("jr-new-chain")["requestBody"])["requestId"], "nosuch"]
    return {"request_id": requests, "requestId": requests, "job_id": jobs, "jobId": jobs}


def narrowed(document: dict[str, Any], ids: dict[str, list[str]]) -> dict[str, Any]:
    """Returns a document that also allows ids and types that exist.

    It has no streams, because most of them do not end.
    """
    for path, operations in list(document["paths"].items()):
        if "text/event-stream" in str(operations):
            del document["paths"][path]
    for path in document["paths"].values():
        for operation in path.values():
            for response in operation.get("responses", {}).values():
                response.get("links", {}).pop("Watch", None)
            for parameter in operation.get("parameters", ()):
                if parameter["name"] in ids:
                    parameter["schema"] = also(parameter["schema"], ids[parameter["name"]])
    for name, schema in list(document["components"]["schemas"].items()):
        properties = schema.get("properties", {})
        if name in ("CreateRequest", "PlanRequest"):
            properties["Type"] = also(properties["Type"], TYPES)
        if name == "JobChainInput":
            chain = json.loads(exchange("jr-new-chain")["requestBody"])
            document["components"]["schemas"][name] = {"anyOf": [{"enum": [chain]}, schema]}
        elif name.endswith("Input"):
            properties.update(
                {key: also(properties[key], ids[key]) for key in ids.keys() & properties.keys()}
            )
    return document


def also(schema: dict[str, Any], values: list[str]) -> dict[str, Any]:
    return {"anyOf": [{"type": "string", "enum": values}, schema]}


@pytest.mark.parametrize("name", ["request-manager", "job-runner"])
def test_generated_calls_get_the_answers_that_the_document_describes(
    server: ServerProcess, ids: dict[str, list[str]], name: str, tmp_path: Path
) -> None:
    base = f"http://{server.address(name, 'http')}"
    document = narrowed(httpx.get(f"{base}/openapi.json").json(), ids)
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "schemathesis"),
            "run",
            "openapi.json",
            f"--url={base}",
            f"--checks={','.join(CHECKS)}",
            "--phases=coverage,fuzzing,stateful",
            f"--seed={SEED}",
            "--generation-deterministic",
            "--suppress-health-check=all",
            "--continue-on-failure",
            f"--request-timeout={ANSWER}",
            "--warnings=off",
            "--no-color",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=COMMAND,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    broken = [event for event in server.events if event["level"] in ("error", "critical")]
    assert not broken
    assert httpx.get(f"{base}/version").status_code == 200
