"""`make run` ends with an address that shows the request that it has run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.processes import REPOSITORY
from tests.limits import PROCESS_END
from tests.page.browsers import visiting
from tests.ports import free_port

pytestmark = pytest.mark.page


def test_the_last_line_of_the_demo_is_an_address_to_open(browser: Browser, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "SPINCYCLE_JOB_RUNNER_ADDR": "127.0.0.1:0"}
    command = [sys.executable, "-m", "spincycle_server", "demo", f"--http=127.0.0.1:{free_port()}"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as demo:
        try:
            assert demo.stdout is not None
            address = next(filter(None, (re.match(r"Open (http://\S+) in", line) for line in demo.stdout)))
            with visiting(browser, address[1]) as visit:
                page = visit.open("/")
                row = page.get_by_role("row").filter(has_text="rolling-restart")
                expect(row).to_contain_text(re.compile("complete", re.IGNORECASE))
        finally:
            demo.send_signal(signal.SIGINT)
            demo.wait(PROCESS_END)
