"""TLS towards an API server: which certificates are believed, and which is shown.

A context is made for each connection, so replaced files are taken up at the next one.
"""

from __future__ import annotations

import os
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flanneld_py.core.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flanneld_py.store.kube_access import KubeAccess, Pem


def make_context(access: KubeAccess, certificate: Pem, key: Pem) -> ssl.SSLContext:
    """Return the context for a connection that shows this certificate, if it is any. Raises StoreError."""
    context = ssl.create_default_context()
    if access.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif access.ca:
        with _naming(f"{access.source}: the CA {access.ca.file}".rstrip()):
            context = ssl.create_default_context(cadata=access.ca.read().decode())
    if certificate:
        with (
            _naming(f"{access.source}: the client certificate {certificate.file}".rstrip()),
            _as_file(certificate) as chain,
            _as_file(key) as secret,
        ):
            # Nobody is there to type a passphrase; without this OpenSSL would ask on the terminal.
            context.load_cert_chain(chain, secret, password=_refuse_passphrase)
    return context


@contextmanager
def _as_file(pem: Pem) -> Iterator[str]:
    """Give OpenSSL a file to read, without leaving a key on a disk: what we have in memory becomes a file there."""
    descriptor = os.memfd_create("pem")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(pem.read())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


@contextmanager
def _naming(what: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError as error:
        reason = (error.reason or "no PEM file").lower().replace("_", " ")
        raise StoreError(f"{what}: unusable: {reason}") from error
    except ValueError as error:  # an empty text, or one that is no ASCII
        raise StoreError(f"{what}: unusable: no PEM file") from error


def _refuse_passphrase() -> str:
    raise StoreError("the client's key is encrypted: give a key without a passphrase")
