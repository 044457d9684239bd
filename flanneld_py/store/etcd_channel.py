"""Opening a connection to one etcd endpoint, with TLS where it asks for it.

Certificate files are read anew for each channel, so replaced files are taken up at the next connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flanneld_py.core.errors import StoreError
from flanneld_py.store.grpc_connection import Connection, connection_error
from flanneld_py.store.grpc_status import CallError, Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flanneld_py.store.etcd_options import Endpoint, EtcdOptions
    from flanneld_py.store.grpc_call import Call

CONNECT_TIMEOUT = 5.0
"""Seconds until an endpoint that does not take our connection counts as dead."""


class Channel:
    """A connection that is made with the first call; once lost, it stays lost."""

    def __init__(self, endpoint: Endpoint, options: EtcdOptions) -> None:
        """Prepare; raise StoreError where a certificate file is unusable."""
        self._endpoint = endpoint
        self._tls = _read_credentials(options) if endpoint.secure else None
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._closed = False

    async def open_call(self, path: str, metadata: Sequence[tuple[str, str]], only: bytes | None = None) -> Call:
        """Begin a call; with its `only` request, if there is just one. Raises CallError."""
        if self._connection is None:
            self._connection = await self._connect()
        return self._connection.open_call(path, metadata, only)

    @property
    def connection(self) -> Connection | None:
        """The connection, once it is made."""
        return self._connection

    def close(self) -> None:
        """End the connection; calls on it fail, and later ones too."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.close(_given_up())

    async def _connect(self) -> Connection:
        if self._closed:
            raise _given_up()
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._open(), name="connect to etcd")
            self._connecting.add_done_callback(_look_at)
        # Whoever waits may be cancelled; others wait for the same connection.
        await asyncio.wait((self._connecting,))
        if self._connecting.cancelled():
            raise _given_up()
        return self._connecting.result()

    async def _open(self) -> Connection:
        host, _, port = self._endpoint.target.rpartition(":")
        host = host.strip("[]")
        made = Connection(self._endpoint.target, secure=self._endpoint.secure)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await asyncio.get_running_loop().create_connection(
                    lambda: made, host, int(port), ssl=self._tls, server_hostname=host if self._tls else None
                )
        except TimeoutError as error:
            raise CallError(Status.DEADLINE_EXCEEDED, "no connection in time") from error
        except socket.gaierror as error:
            raise CallError(Status.UNAVAILABLE, f"errors resolving {host}: {error.strerror}") from error
        except OSError as error:
            raise connection_error(error) from error
        return made


def _look_at(task: asyncio.Task[Connection]) -> None:
    if not task.cancelled():
        task.exception()  # so that asyncio does not complain where nobody waits any more


def _given_up() -> CallError:
    return CallError(Status.UNAVAILABLE, "the connection was given up")


def _read_credentials(options: EtcdOptions) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    if options.cafile:
        with _naming(f"--etcd-cafile {options.cafile}"):
            context.load_verify_locations(options.cafile)
    else:
        context.load_default_certs()
    if options.certfile:
        with _naming(f"--etcd-certfile {options.certfile} with --etcd-keyfile {options.keyfile}"):
            # Nobody is there to type a passphrase; without this OpenSSL would ask on the terminal.
            context.load_cert_chain(options.certfile, options.keyfile, password=_refuse_passphrase)
    return context


@contextmanager
def _naming(files: str) -> Iterator[None]:
    """Turn what is wrong with certificate files into a StoreError that names them."""
    try:
        yield
    except ssl.SSLError as error:
        reason = (error.reason or "no PEM file").lower().replace("_", " ")
        raise StoreError(f"{files}: unusable: {reason}") from error
    except OSError as error:
        raise StoreError(f"{files}: cannot be read: {error.strerror}") from error


def _refuse_passphrase() -> str:
    raise StoreError("--etcd-keyfile is encrypted: give a key without a passphrase")
