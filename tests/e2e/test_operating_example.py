"""The first example of docs/operating.md: separate servers with one configuration file."""

from __future__ import annotations

import re
from pathlib import Path

import trustme

from tests.certificates import write_ca, write_certificate
from tests.e2e.processes import REPOSITORY, running

START = (REPOSITORY / "docs" / "operating.md").read_text().partition("\n## Options\n")[0]


def test_servers_with_the_file_of_the_page_work_together(tmp_path: Path) -> None:
    [example] = re.findall(r"^```yaml\n(.*?)^```$", START, re.DOTALL | re.MULTILINE)
    (tmp_path / "servers.yaml").write_text(example)
    (tmp_path / "cluster.key").write_text("0123456789abcdef" * 4)
    directory = tmp_path / "tls"
    directory.mkdir()
    authority = trustme.CA()
    write_ca(directory, authority)
    write_certificate(directory, "server", authority.issue_cert("127.0.0.1"))
    with running("request-manager", "servers.yaml", "--http=127.0.0.1:0", directory=tmp_path) as manager:
        address = manager.address("request-manager", "grpc")
        arguments = ("job-runner", "servers.yaml", "--http=127.0.0.1:0", f"--rm={address}")
        with running(*arguments, directory=tmp_path):
            assert manager.wait_for("runner reports")["url"].startswith("https://")
