"""Fills and changes the stage's etcd, over one connection that stays open.

One caller, one request at a time; `begin_put` and `finish` let a caller watch for something else in between.
"""

import socket
from collections.abc import Callable, Sequence

from netns_lab.bench import etcd_messages as api
from netns_lab.bench.grpc_wire import (
    FrameReader,
    Kind,
    MessageReader,
    answer_to,
    encode_call,
    encode_opening,
)
from netns_lab.bench.leases import PeerLease, in_hundreds
from netns_lab.errors import LabError
from netns_lab.namespaces import in_network
from netns_lab.places import plain_place
from netns_lab.topology import ETCD, EtcdMember

CALL_SECONDS = 60.0
LEASE_SECONDS = 86_400
REPORT_EVERY = 10_000
RECEIVE_SIZE = 1 << 18


class EtcdClient:
    """A connection to an etcd member. Raises LabError where etcd refuses, OSError where it is not there."""

    def __init__(self, member: EtcdMember) -> None:
        self._member = member
        self._frames = FrameReader()
        self._stream = -1
        with in_network(plain_place(ETCD).network):
            self.socket = socket.create_connection((str(member.address.ip), 2379), CALL_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(encode_opening())

    def begin(self, path: str, message: bytes) -> None:
        """Send a request."""
        self._stream += 2
        self.socket.sendall(encode_call(self._stream, path, message, last=True))

    def finish(self) -> bytes:
        """Return the answer to the request that was sent last."""
        answers: list[bytes] = []
        messages = MessageReader()
        while True:
            data = self.socket.recv(RECEIVE_SIZE)
            if not data:
                raise LabError(f"{self._member.name} hung up")
            for frame in self._frames.feed(data):
                if answer := answer_to(frame):
                    self.socket.sendall(answer)
                if frame.kind == Kind.DATA and frame.stream == self._stream:
                    answers += messages.feed(frame.payload)
                if frame.ends_stream and frame.stream in {0, self._stream}:
                    if not answers:
                        raise LabError(f"{self._member.name} refused a request")
                    return answers[0]

    def call(self, path: str, message: bytes) -> bytes:
        """Make one request and wait for its answer."""
        self.begin(path, message)
        return self.finish()

    def put(self, key: str, value: str) -> None:
        """Write a key."""
        self.call(api.PUT, api.encode_put(key, value))

    def grant(self) -> int:
        """Return a new etcd lease, as every node has one."""
        return api.decode_number(self.call(api.GRANT, api.encode_grant(LEASE_SECONDS)), api.GRANT_ID)

    def begin_put(self, lease: PeerLease, etcd_lease: int) -> None:
        """Send a made-up node's lease without waiting for the answer."""
        self.begin(api.PUT, api.encode_put(lease.key, lease.value, etcd_lease))

    def put_together(self, leases: Sequence[PeerLease], etcd_lease: int) -> None:
        """Write up to a hundred leases in one transaction."""
        self.call(api.TXN, api.encode_puts(api.encode_put(lease.key, lease.value, etcd_lease) for lease in leases))

    def load(self, leases: Sequence[PeerLease], say: Callable[[str], None]) -> None:
        """Write many leases, a hundred to an etcd lease."""
        done = 0
        for hundred in in_hundreds(leases):
            self.put_together(hundred, self.grant())
            done += len(hundred)
            if done % REPORT_EVERY == 0 and done < len(leases):
                say(f"{done:,} of {len(leases):,} leases are in etcd")

    def delete_peers(self, leases: Sequence[PeerLease]) -> None:
        """Delete leases, by hundreds."""
        for hundred in in_hundreds(leases):
            self.call(api.TXN, api.encode_deletes(api.encode_key(lease.key) for lease in hundred))

    def delete_prefix(self, prefix: str) -> None:
        """Delete all keys that begin so."""
        self.call(api.DELETE_RANGE, api.encode_prefix(prefix))
