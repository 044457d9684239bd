"""What etcd's and gRPC's errors mean to an operator: one line that says what is wrong and what to do.

Owns the texts and the classification; pure, apart from reading the error's own fields. Never puts a secret into a text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld_py.core.errors import StoreError
from flanneld_py.store.grpc_status import Status

if TYPE_CHECKING:
    from flanneld_py.store.etcd_options import EtcdOptions
    from flanneld_py.store.grpc_status import CallError

# The first whose words occur in gRPC's or etcd's own text explains it. These texts are no protocol: where a version
# words it otherwise, its own text is shown instead, and only the advice is missing. Compared in
# lower case, with `_` as a space.
_ADVICE = (
    ("certificate has expired", "its certificate has expired: renew it, or set this machine's clock right"),
    ("certificate is not yet valid", "its certificate is not valid yet: set this machine's clock right"),
    ("hostname mismatch", "its certificate names other hosts: give an endpoint as the certificate names it"),
    ("ip address mismatch", "its certificate names other hosts: give an endpoint as the certificate names it"),
    ("certificate verify failed", "its certificate is not signed by a CA in --etcd-cafile: give the CA that signed it"),
    ("wrong version number", "it does not speak TLS: use http:// in --etcd-endpoints"),
    ("alert certificate required", "it wants a client certificate: give --etcd-certfile and --etcd-keyfile"),
    ("alert bad certificate", "it refuses our client certificate: has it expired, or did another CA sign it?"),
    ("alert unknown ca", "it does not know the CA of our client certificate: check --etcd-certfile"),
    ("alert certificate expired", "our client certificate has expired: renew --etcd-certfile"),
    ("invalid user id or password", "the user name or the password is wrong"),
    ("user name is empty", "it wants a user: give --etcd-username and a password"),
    ("database space exceeded", "its database is full: compact and defragment it, then `etcdctl alarm disarm`"),
    ("connection refused", "connection refused: is etcd running there?"),
    ("no route to host", "no route to host: is the network up?"),
    ("network is unreachable", "network unreachable: is the uplink up?"),
    ("errors resolving", "its host name does not resolve: check the name and /etc/resolv.conf"),
    ("no leader", "its cluster has no leader: start the other members"),
    ("request timed out", "its cluster does not answer in time: is a majority of its members up?"),
    ("connection lost", "the connection was lost: is etcd still running there?"),
    ("socket closed", "it closed the connection: check http:// against https://, and whether etcd is starting"),
    ("connection reset", "it closed the connection: check http:// against https://, and whether etcd is starting"),
)
_LONGEST_TEXT = 300

_ELSEWHERE = (Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED)


class EndpointError(StoreError):
    """One endpoint does not serve; another may."""


class HistoryLostError(StoreError):
    """What we know is no part of etcd's history, or no longer: begin with a new list."""


def translate(error: CallError, endpoint: object, options: EtcdOptions) -> StoreError:
    """Return the StoreError that says what an RPC's failure means."""
    code, details = error.status, error.details
    if code is Status.OUT_OF_RANGE:
        return HistoryLostError(f"etcd at {endpoint}: {details}")
    if code is Status.PERMISSION_DENIED:
        return StoreError(f"etcd at {endpoint}: permission denied{_permission_advice(options)}")
    kind = EndpointError if code in _ELSEWHERE else StoreError
    return kind(f"etcd at {endpoint}: {_explain(code, details, options)}")


def is_stale_token(error: CallError, options: EtcdOptions) -> bool:
    """Say whether a new token may help: ours expired, or authentication was switched on meanwhile."""
    if not options.username:
        return False
    details = error.details
    return (
        error.status is Status.UNAUTHENTICATED
        or "user name is empty" in details
        or "revision of auth store is old" in details
    )


def _explain(code: Status, details: str, options: EtcdOptions) -> str:
    if code is Status.DEADLINE_EXCEEDED:
        return "no answer in time: is it overloaded, or a packet filter in between?"
    plain = details.lower().replace("_", " ")
    if not options.certfile:
        # Go's TLS server has one alert for a wrong certificate and for none.
        plain = plain.replace("alert bad certificate", "alert certificate required")
    advice = next((text for words, text in _ADVICE if words in plain), None)
    return advice or f"{details[:_LONGEST_TEXT] or 'no reason given'} ({code.name})"


def _permission_advice(options: EtcdOptions) -> str:
    who = f"user {options.username!r}" if options.username else "our client certificate's user"
    return f": give {who} a role that may read and write all keys under {options.prefix}"
