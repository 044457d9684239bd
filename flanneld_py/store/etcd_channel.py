"""Opening a gRPC channel to one etcd endpoint, with TLS where it asks for it.

Owns the channel's settings. Certificate files are read anew for each channel, so replaced files are taken up at the
next connection; they are checked first, because gRPC ends the whole process on some that are wrong.
"""

from __future__ import annotations

import ssl
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flanneld_py.core.errors import StoreError
from flanneld_py.store.grpc_library import aio, grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flanneld_py.store.etcd_options import Endpoint, EtcdOptions

_SETTINGS = (
    ("grpc.max_receive_message_length", -1),  # a page of leases and a storm of events exceed the default of 4 MiB
    ("grpc.use_local_subchannel_pool", 1),  # else a new channel inherits the back-off of the one it replaces
    ("grpc.enable_retries", 0),  # retrying is ours, on another endpoint
    ("grpc.enable_http_proxy", 0),  # a node's store is no web site
    ("grpc.service_config_disable_resolution", 1),  # no DNS TXT query for each host name
    ("grpc.keepalive_time_ms", 30_000),  # etcd refuses pings more often than every 5 s
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),  # an idle watch is pinged for as long as it lives
)


def open_channel(endpoint: Endpoint, options: EtcdOptions) -> aio.Channel:
    """Return a channel that connects at its first call; raise StoreError where a certificate file is unusable."""
    if not endpoint.secure:
        return aio.insecure_channel(endpoint.target, options=_SETTINGS)
    return aio.secure_channel(endpoint.target, _read_credentials(options), options=_SETTINGS)


def _read_credentials(options: EtcdOptions) -> grpc.ChannelCredentials:
    roots = certificate = key = None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if options.cafile:
        with _naming(f"--etcd-cafile {options.cafile}"):
            context.load_verify_locations(options.cafile)
            roots = Path(options.cafile).read_bytes()
    if options.certfile:
        with _naming(f"--etcd-certfile {options.certfile} with --etcd-keyfile {options.keyfile}"):
            # Nobody is there to type a passphrase; without this OpenSSL would ask on the terminal.
            context.load_cert_chain(options.certfile, options.keyfile, password=_refuse_passphrase)
            certificate, key = Path(options.certfile).read_bytes(), Path(options.keyfile).read_bytes()
    return grpc.ssl_channel_credentials(roots, key, certificate)


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
