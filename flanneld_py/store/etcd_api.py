"""The part of etcd's API that we call: method paths with their message types, key ranges, and constants.

Owns no connection. The messages themselves are generated from etcd.proto.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from google.protobuf.message import DecodeError

from flanneld_py.store import etcd_pb2 as pb
from flanneld_py.store.grpc_status import CallError, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

Request = TypeVar("Request", bound="Message")
Response = TypeVar("Response", bound="Message")


class Method(NamedTuple, Generic[Request, Response]):
    """A remote procedure: its path and the types of its messages."""

    path: str
    request: type[Request]
    response: type[Response]

    @property
    def encode(self) -> Callable[[Request], bytes]:
        """How a request is written."""
        return self.request.SerializeToString

    def decode(self, message: bytes) -> Response:
        """Read a response. Raises CallError where it is none, as of a server that is no etcd."""
        try:
            return self.response.FromString(message)
        except DecodeError as error:
            raise CallError(Status.INTERNAL, "the answer cannot be read: is it etcd that answers?") from error


RANGE = Method("/etcdserverpb.KV/Range", pb.RangeRequest, pb.RangeResponse)
TXN = Method("/etcdserverpb.KV/Txn", pb.TxnRequest, pb.TxnResponse)
WATCH = Method("/etcdserverpb.Watch/Watch", pb.WatchRequest, pb.WatchResponse)
LEASE_GRANT = Method("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantRequest, pb.LeaseGrantResponse)
LEASE_REVOKE = Method("/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeRequest, pb.LeaseRevokeResponse)
LEASE_KEEP_ALIVE = Method("/etcdserverpb.Lease/LeaseKeepAlive", pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse)
LEASE_TIME_TO_LIVE = Method(
    "/etcdserverpb.Lease/LeaseTimeToLive", pb.LeaseTimeToLiveRequest, pb.LeaseTimeToLiveResponse
)
AUTHENTICATE = Method("/etcdserverpb.Auth/Authenticate", pb.AuthenticateRequest, pb.AuthenticateResponse)


class KeyRange(NamedTuple):
    """Keys from `start` up to but without `end`; an empty `end` means the one key `start`."""

    start: bytes
    end: bytes = b""

    def __str__(self) -> str:
        return self.start.decode(errors="backslashreplace") + ("*" if self.end else "")


def keys_below(prefix: bytes) -> KeyRange:
    """Return the range of all keys that begin with `prefix`, whose last byte is below 0xff."""
    return KeyRange(prefix, prefix[:-1] + bytes([prefix[-1] + 1]))
