"""Values that are built from PEM files, and built again when the files change."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

import structlog

from spincycle_server.config import ConfigError
from spincycle_server.listening import TlsFiles
from spincycle_server.tls.pem_files import Pems, certificates_in, check_pems, read_pems

logger = structlog.get_logger(__name__)

EXPIRY_WARNING = timedelta(days=14)
"""How long before its end the log warns of a certificate; a quarter of its lifetime if that is shorter."""

_WARNING_INTERVAL = timedelta(days=1)

_Value = TypeVar("_Value")


class Reloaded(Generic[_Value]):
    """A value that is built from PEM files, and built again when they change.

    Args:
        files: The files.
        build: Builds the value from checked contents. Raises ConfigError if it cannot.

    Attributes:
        value: The newest value. After a change it is another object.

    Raises:
        ConfigError: A file is missing or invalid. The message names its option.
    """

    def __init__(self, files: TlsFiles, build: Callable[[Pems], _Value]) -> None:
        self._files = files
        self._build = build
        self._pems = read_pems(files)
        check_pems(self._pems, files)
        self._fault = ""
        self._warned_at: datetime | None = None
        self.value = build(self._pems)

    @property
    def option(self) -> str:
        """The options of the files: "server.tls"."""
        return self._files.option

    @property
    def expires(self) -> datetime | None:
        """When the certificate expires; None without one."""
        if not self._pems.cert:
            return None
        return certificates_in(self._pems.cert, self._files, "cert_file")[0].not_valid_after_utc

    def warn_before_end(self, now: datetime | None = None) -> None:
        """Logs a warning if the certificate expires soon or has expired, at most once a day."""
        now = now or datetime.now(UTC)
        if not self._pems.cert or (self._warned_at is not None and now - self._warned_at < _WARNING_INTERVAL):
            return
        certificate = certificates_in(self._pems.cert, self._files, "cert_file")[0]
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if end - now > min(EXPIRY_WARNING, (end - start) / 4):
            return
        self._warned_at = now
        logger.warning(
            "certificate has expired" if end <= now else "certificate expires soon",
            option=f"{self._files.option}.cert_file",
            file=self._files.cert_file,
            expires=end.isoformat(),
        )

    def reload(self) -> None:
        """Builds a new value if the contents of the files have changed. Blocks while it reads the files.

        If the new files are invalid, the value stays as it is, and a warning in the log says why. Call it
        again then: the files may be in the middle of a change.
        """
        try:
            pems = read_pems(self._files)
            if pems == self._pems:
                self._fault = ""
                return
            check_pems(pems, self._files)
            value = self._build(pems)
        except ConfigError as error:
            if error.message != self._fault:
                logger.warning(
                    "new certificate files not used, the old ones stay in use", error=error.message
                )
            self._fault = error.message
            return
        self._pems, self.value, self._fault, self._warned_at = pems, value, "", None
        logger.info("certificate files reloaded", option=self._files.option)
