"""TLS credentials of clients, read from PEM files."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from weakref import WeakSet

import grpc

from spincycle_grpc.errors import InvalidArgumentError

PemFile = str | os.PathLike[str]

_made: WeakSet[grpc.ChannelCredentials] = WeakSet()


def tls_credentials(
    ca: PemFile | None = None, cert: PemFile | None = None, key: PemFile | None = None
) -> grpc.ChannelCredentials:
    """Returns the credentials for `Client(credentials=...)`. The files are read once.

    Args:
        ca: The certificates of the CAs that may have signed the server's certificate. None: the public CAs
            that gRPC knows, not those of the operating system.
        cert: The client's certificate, followed by its intermediate certificates. It needs `key`.
        key: The private key of the certificate, without a passphrase.

    Raises:
        InvalidArgumentError: A file cannot be read or has other contents, or the key belongs to another
            certificate. Reason: BAD_TLS_FILES.
    """
    if (cert is None) != (key is None):
        raise _invalid("a client's certificate needs its key: give both, or neither")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    contents = [None if path is None else _read(path) for path in (ca, key, cert)]
    if ca is not None:
        _check_ca(context, ca)
    if cert is not None and key is not None:
        _check_pair(context, cert, key)
    root, private_key, chain = contents
    credentials = grpc.ssl_channel_credentials(root, private_key, chain)
    _made.add(credentials)
    return credentials


def is_tls(credentials: grpc.ChannelCredentials) -> bool:
    """Whether credentials come from `tls_credentials`. Others need not encrypt, and gRPC does not say."""
    return credentials in _made


def _read(path: PemFile) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _invalid(f"cannot read {path}: {error.strerror}") from error


def _check_ca(context: ssl.SSLContext, ca: PemFile) -> None:
    try:
        context.load_verify_locations(ca)
    except (ssl.SSLError, OSError) as error:
        raise _invalid(f"{ca} has no certificate in PEM format") from error


def _check_pair(context: ssl.SSLContext, cert: PemFile, key: PemFile) -> None:
    """Checks a certificate and its key as a TLS library does, which gRPC does only when it connects."""
    try:
        context.load_cert_chain(cert, key, password=_no_passphrase)
    except (ssl.SSLError, OSError, _PassphraseNeededError) as error:
        raise _invalid(_pair_problem(error, cert, key)) from error


def _pair_problem(error: Exception, cert: PemFile, key: PemFile) -> str:
    if isinstance(error, _PassphraseNeededError):
        return f"the key {key} has a passphrase: give a key without one"
    if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
        return f"the key {key} does not belong to the certificate {cert}"
    return f"{cert} and {key} must be a certificate and its key in PEM format"


class _PassphraseNeededError(Exception):
    """The key is encrypted."""


def _no_passphrase() -> str:
    # Without this function, the library asks for a passphrase on the terminal.
    raise _PassphraseNeededError


def _invalid(message: str) -> InvalidArgumentError:
    return InvalidArgumentError(message, reason="BAD_TLS_FILES")
