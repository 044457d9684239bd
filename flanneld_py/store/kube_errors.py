"""What may go wrong between us and the Kubernetes API: one line that says what is wrong and what to do.

Owns the texts and the classification. Never puts a secret into a text.
"""

from __future__ import annotations

import json
import socket
import ssl

from flanneld_py.core.errors import StoreError

_LONGEST_TEXT = 300
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _GONE = 401, 403, 404, 410

# The first whose words occur in OpenSSL's text explains it; elsewhere that text is shown as it is.
_TLS_ADVICE = (
    ("certificate has expired", "its certificate has expired: renew it, or set this machine's clock right"),
    ("certificate is not yet valid", "its certificate is not valid yet: set this machine's clock right"),
    ("hostname mismatch", "its certificate names other hosts: give an address as the certificate names it"),
    ("ip address mismatch", "its certificate names other hosts: give an address as the certificate names it"),
    ("certificate verify failed", "its certificate is not signed by the CA that we know"),
    ("wrong version number", "it does not speak TLS: use http://"),
    ("certificate required", "it wants a client certificate"),
    ("certificate unknown", "it refuses our client certificate: has it expired, or did another CA sign it?"),
    ("bad certificate", "it refuses our client certificate: has it expired, or did another CA sign it?"),
    ("unknown ca", "it does not know the CA of our client certificate"),
)
_OS_ADVICE = {
    ConnectionRefusedError: "connection refused: is it running there?",
    ConnectionResetError: "it closed the connection",
    BrokenPipeError: "it closed the connection",
    TimeoutError: "no answer in time: is it overloaded, or a packet filter in between?",
    socket.gaierror: "its host name does not resolve: check the name and /etc/resolv.conf",
}


class UnauthorizedError(StoreError):
    """The API server does not take our credentials; newer ones may be had."""


class NotFoundError(StoreError):
    """There is no such object."""


class GoneError(StoreError):
    """The history that was asked for is no longer there: begin with a new list."""


def explain_connection(error: Exception) -> str:
    """Return in one line what an error on the way to the API server means."""
    if isinstance(error, ssl.SSLError):
        # OpenSSL's alerts are in capitals with underscores, verification errors are prose.
        plain = str(error).lower().replace("_", " ")
        return next((text for words, text in _TLS_ADVICE if words in plain), plain[:_LONGEST_TEXT])
    for kind, text in _OS_ADVICE.items():
        if isinstance(error, kind):
            return text
    return getattr(error, "strerror", None) or str(error)[:_LONGEST_TEXT] or type(error).__name__


def refusal(server: object, status: int, body: bytes, what: str) -> StoreError:
    """Return the error that an answer other than 200 means; `what` says what was asked for."""
    message = _read_message(body) or f"HTTP status {status}"
    where = f"Kubernetes API at {server}: {what}"
    if status == _UNAUTHORIZED:
        return UnauthorizedError(f"{where}: our credentials are not taken ({message}): check token or certificate")
    if status == _FORBIDDEN:
        return StoreError(f"{where}: forbidden ({message}): grant nodes get, list, watch and nodes/status patch")
    if status == _NOT_FOUND:
        return NotFoundError(f"{where}: {message}")
    if status == _GONE:
        return GoneError(f"{where}: {message}")
    return StoreError(f"{where}: {message} ({status})")


def _read_message(body: bytes) -> str:
    """Return the message of a Status object (meta/v1), or the beginning of a text."""
    try:
        value = json.loads(body)
    except ValueError:
        return body.decode(errors="replace").strip()[:_LONGEST_TEXT]
    message = value.get("message") if isinstance(value, dict) else None
    return str(message)[:_LONGEST_TEXT] if message else ""
