"""What protects the system of the chaos test: mutual TLS between servers, and a token of its users."""

from __future__ import annotations

import ssl
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import trustme

from tests.certificates import Files, write_ca, write_certificate
from tests.e2e.processes import REPOSITORY
from tests.limits import COMMAND

_NAMES = ("manager", "runner")


class Security:
    """The certificates of the servers, and the options that use them.

    Args:
        directory: Where the files are written.

    Attributes:
        ca_file: The CA that users trust.
        context: What users trust.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = trustme.CA()
        # Loading the authority takes milliseconds, and each stream of each watcher needs it.
        self.context = ssl.create_default_context(cadata=self._authority.cert_pem.bytes().decode())
        self.ca_file = write_ca(directory, self._authority)
        self._files: dict[str, Files] = {}
        self.renew()

    def renew(self) -> None:
        """Writes new certificates over the old ones. Servers notice it, also while they start."""
        for name in _NAMES:
            leaf = self._authority.issue_cert("127.0.0.1", "127.0.0.2", common_name=name)
            self._files[name] = write_certificate(self._directory, name, leaf)

    def environment(self, name: str, listen: str) -> Mapping[str, str]:
        """Returns the variables of a "manager" or a "runner" that listens for other servers at an address."""
        client = "JR" if name == "manager" else "RM"
        own = self._files[name]
        files = {"CERT_FILE": own.cert, "KEY_FILE": own.key, "CA_FILE": self.ca_file}
        return {
            **{f"SPINCYCLE_SERVER_TLS_{option}": path for option, path in files.items()},
            **{f"SPINCYCLE_{client}_CLIENT_TLS_{option}": path for option, path in files.items()},
            "SPINCYCLE_CLUSTER_LISTEN": listen,
            "SPINCYCLE_CLUSTER_CERTIFICATES": ",".join(_NAMES),
            "SPINCYCLE_AUTH_METHODS": "token",
        }

    def new_token(self, url: str) -> str:
        """Creates a token for users in the database at a URL."""
        command = [sys.executable, "-m", "spincycle_server", "token", "create", "chaos", "--db", url]
        made = subprocess.run(
            command,
            cwd=self._directory,
            env={"PYTHONPATH": str(REPOSITORY), "PATH": ""},
            stdout=subprocess.PIPE,
            timeout=COMMAND,
            check=True,
            text=True,
        )
        return made.stdout.split()[-1]
