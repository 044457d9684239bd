"""The clock of the store: etcd tells it in the Date of any answer over HTTP (RFC 9110, section 6.6.1)."""

from __future__ import annotations

import http.client
import ssl
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

_PATIENCE = 2.0


def read_store_clock(store: Mapping[str, Any]) -> float | None:
    """Return etcd's time in seconds since the epoch, to the second; None where it does not tell.

    `store` is how the daemon says that it reaches it.
    """
    if store.get("type") != "etcd" or not store.get("endpoint"):
        return None
    url = urlsplit(store["endpoint"])
    try:
        return _read_date(url.scheme, url.hostname or "", url.port or 2379, store)
    except (OSError, ValueError, http.client.HTTPException):
        return None


def _read_date(scheme: str, host: str, port: int, store: Mapping[str, Any]) -> float | None:
    connection: http.client.HTTPConnection
    if scheme == "https":
        context = ssl.create_default_context(cafile=store.get("cafile") or None)
        # What certificates are worth cannot be told by a clock that may be wrong; nothing but the time is asked.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if store.get("certfile"):
            context.load_cert_chain(store["certfile"], store.get("keyfile") or None)
        connection = http.client.HTTPSConnection(host, port, timeout=_PATIENCE, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=_PATIENCE)
    try:
        connection.request("GET", "/version")
        date = connection.getresponse().getheader("Date")
        return parsedate_to_datetime(date).timestamp() if date else None
    finally:
        connection.close()
