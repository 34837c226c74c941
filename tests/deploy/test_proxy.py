"""The recipe for a proxy in deploy/README.md, with a real nginx that ends TLS before a real server."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme

from tests.commands.in_process import spincycle
from tests.databases import find_binary
from tests.deploy.deployed import DEPLOY
from tests.e2e.processes import running
from tests.e2e.waiting import eventually
from tests.limits import ANSWER, PROCESS_END
from tests.ports import free_port

HOST = "spin.example.com"
BROWSER = {
    "Host": HOST,
    "Origin": f"https://{HOST}",
    "X-Spincycle-Page": "1",
    "Sec-Fetch-Site": "same-origin",
}

NGINX = """
worker_processes 1;
daemon off;
{user}
pid {directory}/nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    {places}
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {directory}/public.pem;
        ssl_certificate_key {directory}/public.key;
        {location}
    }}
}}
"""
PLACES = (
    "client_body_temp_path",
    "proxy_temp_path",
    "fastcgi_temp_path",
    "uwsgi_temp_path",
    "scgi_temp_path",
)

CONFIG = f"""
server:
  addr: "127.0.0.1:0"
  tls: {{cert_file: server.pem, key_file: server.key}}
  public_url: https://{HOST}
auth: {{methods: [token]}}
cluster: {{key_file: cluster.key}}
"""


def location(server: str, ca: Path) -> str:
    """Returns the block of the README, for a server of the test."""
    readme = (DEPLOY / "README.md").read_text()
    (block,) = re.findall(r"^```nginx\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert "https://rm1.example.com:32308" in block
    block = block.replace("https://rm1.example.com:32308", f"https://{server}")
    return str(block).replace("/etc/nginx/spincycle-ca.pem", str(ca))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files of a server and of a proxy."""
    made = tmp_path_factory.mktemp("proxy")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(made / "ca.pem"))
    for name, host in (("server", "rm1.example.com"), ("public", HOST)):
        certificate = authority.issue_cert(host)
        certificate.private_key_pem.write_to_path(str(made / f"{name}.key"))
        (made / f"{name}.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    (made / "cluster.key").write_text("k" * 40)
    (made / "config.yaml").write_text(CONFIG)
    return made


@pytest.fixture(scope="module")
def server(directory: Path) -> Iterator[str]:
    """The address of the HTTPS port of a Request Manager."""
    with running("request-manager", "config.yaml", directory=directory) as started:
        yield started.address("request-manager", "http")


@pytest.fixture(scope="module")
def browser(directory: Path, server: str) -> Iterator[httpx.Client]:
    """Calls the server through nginx, as a browser does."""
    port = free_port()
    config = NGINX.format(
        directory=directory, port=port, location=location(server, directory / "ca.pem"),
        places=" ".join(f"{name} {directory}/{name};" for name in PLACES),
        user="user root;" if os.getuid() == 0 else "",
    )  # fmt: skip
    (directory / "nginx.conf").write_text(config)
    nginx = subprocess.Popen(
        [find_binary("nginx"), "-p", directory, "-e", "stderr", "-c", directory / "nginx.conf"],
        stdin=subprocess.DEVNULL,
    )
    try:
        trusted = ssl.create_default_context(cafile=str(directory / "ca.pem"))
        with httpx.Client(
            base_url=f"https://127.0.0.1:{port}", headers=BROWSER, verify=trusted, timeout=ANSWER
        ) as client:
            eventually(lambda: nginx.poll() is not None or is_open(client))
            yield client
    finally:
        nginx.terminate()
        nginx.wait(PROCESS_END)


def is_open(client: httpx.Client) -> bool:
    try:
        call(client, "GET", "/version")
    except httpx.ConnectError:
        return False
    return True


def call(client: httpx.Client, method: str, path: str, **headers: str) -> httpx.Response:
    return client.request(method, path, headers=headers, extensions={"sni_hostname": HOST})


def test_the_page_answers_to_its_public_name_alone(browser: httpx.Client) -> None:
    assert call(browser, "GET", "/web/session").json()["signIn"] == ["token"]
    refused = call(browser, "GET", "/web/session", Host="evil.example.com")
    assert (refused.status_code, refused.headers["X-Spincycle-Reason"]) == (421, "HOST_NOT_ALLOWED")


def test_a_user_signs_in_and_follows_changes_through_the_proxy(
    browser: httpx.Client, directory: Path
) -> None:
    done = spincycle(directory, "token", "create", "ann", "--role=dba", "config.yaml")
    assert done.returncode == 0, done.stderr
    signed_in = call(browser, "POST", "/web/sign-in", Authorization=f"Bearer {done.stdout.strip()}")
    assert signed_in.status_code == 204, signed_in.text
    assert "secure" in signed_in.headers["Set-Cookie"].lower()
    with browser.stream("GET", "/api/v1/watch", extensions={"sni_hostname": HOST}) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        first = next(stream.iter_lines())  # It arrives while the stream is open.
        assert first.startswith(("retry:", "id:", "data:", ":"))
