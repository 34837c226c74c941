"""docs/clients.md: its example of the Python client runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trustme

from spincycle_grpc import Client, State
from spincycle_grpc.v1.output_pb2 import OutputEnd, OutputText
from spincycle_grpc.v1.request_manager_pb2 import FollowOutputResponse, WatchResponse
from tests.fake_manager import REQUEST_ID, FakeManager, entry, serving, stage

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()


EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_example_of_the_client_opens_a_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = EXAMPLES[0]
    (tmp_path / "company-ca.pem").write_bytes(trustme.CA().cert_pem.bytes())
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(example, names)
    client = names["client"]
    assert hasattr(client, "close")
    client.close()


def test_the_example_of_a_watch_prints_what_happens(capsys: pytest.CaptureFixture[str]) -> None:
    manager = FakeManager()
    manager.streams = [
        [WatchResponse(cursor="1", requests=[stage(State.FAIL, 1)], tries=[entry(1, error="no")])]
    ]
    with serving(manager) as address, Client(address) as client:
        exec(EXAMPLES[1], {"client": client, "request_id": REQUEST_ID})
    assert capsys.readouterr().out == "1 of 5\nnap 7 no\n"


def test_the_example_of_live_output_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    manager = FakeManager()
    manager.outputs["aaaa"] = [
        [
            FollowOutputResponse(cursor="1", text=OutputText(text="one\n")),
            FollowOutputResponse(cursor="1", end=OutputEnd(exit=7)),
        ]
    ]
    with serving(manager) as address, Client(address) as client:
        exec(EXAMPLES[2], {"client": client, "request_id": REQUEST_ID, "job_id": "aaaa"})
    assert capsys.readouterr().out == "one\nexit 7\n"
