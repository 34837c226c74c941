"""Notifications reach their receivers whatever dies, by one server at a time, and nothing shows a secret."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme
from sqlalchemy import update

from spincycle_grpc import Client
from spincycle_grpc.errors import NotFoundError
from spincycle_grpc.v1.notification_pb2 import (
    DELIVERY_STATE_DELIVERED,
    DELIVERY_STATE_GIVEN_UP,
    DELIVERY_STATE_WAITING,
    Delivery,
)
from spincycle_server.store.schema import deliveries
from tests.certificates import write_ca
from tests.databases import SharedServers, engine_of
from tests.e2e import installations
from tests.e2e.processes import DEFAULTS
from tests.e2e.receiver import Receiver, Webhook, receiving
from tests.e2e.waiting import eventually
from tests.limits import COMMAND, PROCESS_END, REQUEST_END

SPECS = """
sequences:
  works:
    request: true
    args: {required: [{name: out, desc: a text}, {name: password, desc: a secret}]}
    nodes:
      say: {category: job, type: echo, args: [{expected: out, given: out}]}
  fails:
    request: true
    args: {static: [{name: times, default: "9"}]}
    nodes:
      ship: {category: job, type: fail-times, args: [{expected: times, given: times}]}
"""
KEYS = (b"k" * 24, b"n" * 32, b"o" * 64)
PASSWORD = "hunter2-hunter2"


def secret_of(key: bytes) -> str:
    return f"whsec_{base64.b64encode(key).decode()}"


def is_signed(webhook: Webhook, key: bytes) -> bool:
    """Verifies a signature as docs/notifications.md tells receivers to, with Python's own libraries."""
    headers = webhook.headers
    assert abs(time.time() - int(headers["webhook-timestamp"])) < REQUEST_END
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + webhook.body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    given = [part.partition(",") for part in headers["webhook-signature"].split()]
    return any(version == "v1" and hmac.compare_digest(one, expected) for version, _, one in given)


class Installation(installations.Installation):
    """Request Managers on one database and a Job Runner, with targets."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack, **options: Any) -> None:
        super().__init__(directory, stack, SPECS, **options)
        self.secret = directory / "secret"
        self.use_secrets(KEYS[0])

    def use_secrets(self, *keys: bytes) -> None:
        self.secret.write_text("".join(f"{secret_of(key)}\n" for key in keys))
        self.secret.chmod(0o600)

    def use_targets(self, targets: Mapping[str, Mapping[str, Any]], **options: Any) -> None:
        """Writes the configuration. A target gets the secret and all events unless it says otherwise."""
        shared = {"events": ["failed", "completed", "stopped"], "secret_file": str(self.secret)}
        config = {
            "notifications": {
                "allowed_hosts": ["127.0.0.1"],
                "targets": {name: {**shared, **target} for name, target in targets.items()},
                **options,
            },
            "server": {"public_url": "https://spin.example.com"},
        }
        self.configure(json.dumps(config))

    def deliveries(self, **wanted: Any) -> Sequence[Delivery]:
        return self.client.list_deliveries(**wanted).deliveries

    def make_due(self, **values: int) -> None:
        """Ends all claims and pauses, as time would, and sets other columns."""
        engine = engine_of(self.database)
        with engine.begin() as connection:
            connection.execute(
                update(deliveries)
                .where(deliveries.c.delivery_state == DELIVERY_STATE_WAITING)
                .values(next_attempt_at=0, **values)
            )
        engine.dispose()


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def installation(tmp_path: Path, stack: contextlib.ExitStack) -> Installation:
    return Installation(tmp_path, stack)


@pytest.fixture
def receiver(stack: contextlib.ExitStack) -> Receiver:
    return stack.enter_context(receiving())


def work(client: Client) -> str:
    return client.create("works", {"out": "x", "password": PASSWORD}).id


def test_a_receiver_gets_signed_events_without_args_and_nothing_shows_a_secret(
    installation: Installation, receiver: Receiver
) -> None:
    installation.use_targets(
        {
            "ops": {"url": f"{receiver.url}/hooks/s3cr3t-path?a=b"},
            "fails-only": {
                "url": f"{receiver.url}/other", "events": ["failed"], "types": "fails", "args": ["times"],
            },
            "nobody": {"url": receiver.url, "types": ["works"], "events": "stopped"},
        }
    )  # fmt: skip
    manager = installation.start_manager()
    runner = installation.start_runner()
    client = installation.client
    done = work(client)
    eventually(lambda: len(receiver.received) == 1)
    failed = client.create("fails").id
    eventually(lambda: len(receiver.received) == 3)
    completed, *failures = receiver.received
    assert completed.path == "/hooks/s3cr3t-path?a=b"
    assert completed.headers["content-type"] == "application/json"
    assert all(is_signed(webhook, KEYS[0]) for webhook in receiver.received)
    assert not is_signed(completed, KEYS[1])
    content = completed.content
    assert content.items() >= {
        "id": completed.headers["webhook-id"], "event": "completed", "target": "ops", "requestId": done,
        "requestType": "works", "requestState": "COMPLETE",
        "requestUrl": f"https://spin.example.com/requests/{done}",
    }.items()  # fmt: skip
    assert "args" not in content
    by_path = {webhook.path.partition("?")[0]: webhook.content for webhook in failures}
    job = {"path": "ship", "error": "failed on purpose"}
    for content in by_path.values():
        (shown,) = content["failedJobs"]
        assert content["requestId"] == failed
        assert shown.items() >= job.items()
    assert by_path["/other"]["args"] == {"times": "9"}
    assert by_path["/other"]["id"] == by_path["/hooks/s3cr3t-path"]["id"]
    eventually(lambda: all(one.state == DELIVERY_STATE_DELIVERED for one in installation.deliveries()))
    configured = installation.client.get_configuration()
    command = subprocess.run(
        [sys.executable, "-m", "spincycle_server", "config", "config.yaml"],
        cwd=installation.directory, capture_output=True, timeout=COMMAND, check=True,
    )  # fmt: skip
    shown = "\n".join(
        (
            manager.log(),
            runner.log(),
            str(configured),
            command.stdout.decode(),
            str(installation.deliveries()),
        )
    )
    assert "failed as json to 127.0.0.1" in shown.replace("completed, ", "").replace(", stopped", "")
    for secret in (PASSWORD, "s3cr3t", secret_of(KEYS[0])[6:]):
        assert secret not in shown


def test_a_secret_is_replaced_without_a_restart(installation: Installation, receiver: Receiver) -> None:
    installation.use_targets({"ops": {"url": receiver.url}})
    manager = installation.start_manager()
    client = installation.client
    client.send_test_notification("ops")
    eventually(lambda: len(receiver.received) == 1)
    installation.use_secrets(KEYS[1], KEYS[0])
    manager.process.send_signal(signal.SIGHUP)
    manager.wait_for("notifications reloaded")
    client.send_test_notification("ops")
    eventually(lambda: len(receiver.received) == 2)
    both = receiver.received[1]
    assert is_signed(both, KEYS[0])
    assert is_signed(both, KEYS[1])
    installation.secret.write_text("whsec_short\n")
    manager.process.send_signal(signal.SIGHUP)
    refused = manager.wait_for("not reloaded because of errors: the earlier version stays in use")
    assert "whsec_short" not in str(refused)
    client.send_test_notification("ops")
    eventually(lambda: len(receiver.received) == 3)
    assert is_signed(receiver.received[2], KEYS[1])


def test_what_a_receiver_does_not_accept_is_sent_again(
    installation: Installation, receiver: Receiver, stack: contextlib.ExitStack
) -> None:
    elsewhere = stack.enter_context(receiving())
    receiver.answers = [
        (500, {}),
        (302, {"Location": elsewhere.url}),
        (429, {"Retry-After": "600"}),
    ]
    installation.use_targets({"ops": {"url": receiver.url}})
    installation.start_manager()
    installation.start_runner()
    work(installation.client)

    def has_failed(error: str) -> bool:
        return [one.last_error for one in installation.deliveries()] == [error]

    for error in ("status 500", "status 302: redirects are not followed", "status 429"):
        eventually(partial(has_failed, error))
        (found,) = installation.deliveries()
        assert found.state == DELIVERY_STATE_WAITING
        installation.make_due()
    assert found.next_attempt_at.seconds - found.occurred_at.seconds > 300  # The receiver asked for 600.
    eventually(lambda: installation.deliveries()[0].state == DELIVERY_STATE_DELIVERED)
    assert len({webhook.headers["webhook-id"] for webhook in receiver.received}) == 1
    assert len({webhook.body for webhook in receiver.received}) == 1
    assert elsewhere.received == []


def test_a_receiver_that_stalls_delays_no_other(
    installation: Installation, receiver: Receiver, stack: contextlib.ExitStack
) -> None:
    stalling = stack.enter_context(receiving())
    stalling.stalls.set()
    installation.use_targets({"stalls": {"url": stalling.url}, "works": {"url": receiver.url}})
    installation.start_manager()
    client = installation.client
    for _ in range(8):
        client.send_test_notification("stalls")
    eventually(lambda: len(stalling.received) == 4)  # The attempts at a time.
    client.send_test_notification("works")
    eventually(lambda: len(receiver.received) == 1)
    assert len(stalling.received) == 4


def test_a_receiver_may_say_that_it_wants_no_more_and_an_event_is_redelivered(
    installation: Installation, receiver: Receiver
) -> None:
    receiver.answers = [(410, {})]
    installation.use_targets({"ops": {"url": receiver.url}})
    installation.start_manager()
    client = installation.client
    event_id = client.send_test_notification("ops")
    eventually(lambda: installation.deliveries()[0].last_error == "status 410")
    client.redeliver(event_id, "ops")
    eventually(lambda: installation.deliveries()[0].state == DELIVERY_STATE_DELIVERED)
    assert [content["id"] for content in receiver.contents] == [event_id] * 2
    with pytest.raises(NotFoundError) as unknown:
        client.send_test_notification("nobody")
    assert unknown.value.reason == "TARGET_NOT_FOUND"


def test_a_server_without_targets_gives_up_what_earlier_targets_left(
    installation: Installation, receiver: Receiver
) -> None:
    receiver.answers = [(500, {})]
    installation.use_targets({"ops": {"url": receiver.url}})
    manager = installation.start_manager()
    installation.start_runner()
    work(installation.client)
    eventually(lambda: [one.last_error for one in installation.deliveries()] == ["status 500"])
    manager.kill()
    installation.make_due(occurred_at=0)
    installation.use_targets({})
    installation.start_manager()
    eventually(lambda: installation.deliveries()[0].state == DELIVERY_STATE_GIVEN_UP)
    (found,) = installation.deliveries()
    assert found.last_error == "no server has a target with this name"
    with pytest.raises(NotFoundError) as refused:
        installation.client.redeliver(found.event_id, "ops")
    assert refused.value.reason == "TARGET_NOT_FOUND"


@pytest.mark.parametrize("point", ["notification is not claimed", "notification is claimed"])
def test_an_event_survives_the_death_of_the_server_between_its_commit_and_its_delivery(
    installation: Installation, receiver: Receiver, point: str
) -> None:
    installation.use_targets({"ops": {"url": receiver.url}})
    manager = installation.start_manager(point=point)
    installation.start_runner()
    request_id = work(installation.client)
    assert manager.process.wait(PROCESS_END) == -signal.SIGKILL
    assert receiver.received == []
    installation.start_manager()
    if point == "notification is claimed":
        installation.make_due()
    eventually(lambda: installation.deliveries()[0].state == DELIVERY_STATE_DELIVERED)
    assert [content["requestId"] for content in receiver.contents] == [request_id]


def test_a_server_that_dies_during_an_attempt_leaves_it_to_the_next_with_the_same_id(
    installation: Installation, receiver: Receiver
) -> None:
    receiver.stalls.set()
    installation.use_targets({"ops": {"url": receiver.url}})
    manager = installation.start_manager()
    event_id = installation.client.send_test_notification("ops")
    eventually(lambda: len(receiver.received) == 1)
    manager.kill()
    receiver.stalls.clear()
    installation.make_due()
    installation.start_manager()
    eventually(lambda: installation.deliveries()[0].state == DELIVERY_STATE_DELIVERED)
    assert [content["id"] for content in receiver.contents] == [event_id] * 2


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_two_request_managers_send_each_event_once(
    tmp_path: Path,
    stack: contextlib.ExitStack,
    receiver: Receiver,
    database_servers: SharedServers,
    kind: str,
) -> None:
    with database_servers.migrated(kind, tmp_path) as url:
        installation = Installation(tmp_path, stack, database=url, managers=2)
        installation.use_targets({"ops": {"url": receiver.url}})
        for number in range(2):
            installation.start_manager(number)
        installation.start_runner()
        clients = [installation.client_of(number) for number in range(2)]
        ids = [work(client) for client in clients for _ in range(10)]
        eventually(lambda: len(receiver.received) >= len(ids))
        eventually(lambda: all(one.state == DELIVERY_STATE_DELIVERED for one in installation.deliveries()))
        assert sorted(content["requestId"] for content in receiver.contents) == sorted(ids)
        stack.close()


def test_https_checks_the_certificate_of_the_receiver(
    installation: Installation, stack: contextlib.ExitStack
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusted, other = stack.enter_context(receiving(context)), stack.enter_context(receiving(_of_another_ca()))
    ca_file = write_ca(installation.directory, authority)
    installation.use_targets({"ops": {"url": trusted.url}, "other": {"url": other.url}}, ca_file=ca_file)
    installation.start_manager()
    client = installation.client
    client.send_test_notification("ops")
    client.send_test_notification("other")
    eventually(lambda: len(trusted.received) == 1)
    eventually(lambda: "TLS failed" in installation.deliveries(target="other")[0].last_error)
    assert other.received == []


def _of_another_ca() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"url": "https://hooks.example.com/s3cr3t"}, "add hooks.example.com to notifications.allowed_hosts"),
        ({"url": "http://10.0.0.1/s3cr3t"}, "must be one of HTTPS"),
        ({"url": "https://user:s3cr3t@127.0.0.1/"}, "must be one of HTTPS without a password"),
        ({"url": "https://127.0.0.1", "secret_file": ""}, "secret_file must be set"),
        ({"url": "https://127.0.0.1", "events": ["s3cr3t"]}, "events must be a list of approval-wanted"),
        ({"url": "https://127.0.0.1", "secret_file": "none"}, "cannot read none: No such file"),
    ],
)
def test_a_server_with_a_bad_target_does_not_start(
    installation: Installation, target: Mapping[str, Any], message: str
) -> None:
    installation.use_targets({"ops": target})
    result = subprocess.run(
        [sys.executable, "-m", "spincycle_server", "server", "--http=127.0.0.1:0", "config.yaml"],
        cwd=installation.directory,
        env={**os.environ, **DEFAULTS, "SPINCYCLE_SPECS_DIR": "specs"},
        capture_output=True,
        timeout=COMMAND,
        check=False,
    )
    output = result.stdout.decode() + result.stderr.decode()
    assert result.returncode != 0
    assert message in output
    assert "s3cr3t" not in output
    assert "Traceback" not in output
