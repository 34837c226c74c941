"""Which CAs tests trust.

Tests trust no public CA, and loading all of them takes 30 ms of CPU time for each HTTP client. So OpenSSL
finds one CA instead, in the process of the tests and in those that it starts. Tools that download from a
registry need the CAs of the machine.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import trustme

_NAMES = ("SSL_CERT_DIR", "SSL_CERT_FILE")
_OF_MACHINE = {name: os.environ[name] for name in _NAMES if name in os.environ}


def replace_by_one() -> None:
    """Makes this process, and those that it starts, trust one CA that has signed nothing."""
    directory = tempfile.mkdtemp(prefix="spincycle-ca-")
    atexit.register(shutil.rmtree, directory)
    os.environ["SSL_CERT_DIR"] = directory
    os.environ["SSL_CERT_FILE"] = str(Path(directory, "ca.pem"))
    trustme.CA().cert_pem.write_to_path(os.environ["SSL_CERT_FILE"])


def with_those_of_the_machine(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns an environment in which the CAs of the machine are trusted again."""
    others = {name: value for name, value in environment.items() if name not in _NAMES}
    return {**others, **_OF_MACHINE}
