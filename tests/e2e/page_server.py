"""Runs `spincycle` with a page that a test has built, as if it were in the wheel."""

from __future__ import annotations

import os
from pathlib import Path

from spincycle_server.__main__ import main
from spincycle_server.web import page_files

if __name__ == "__main__":
    page_files.DIRECTORY = Path(os.environ["SPINCYCLE_TEST_PAGE"])
    main()
