"""A netlink socket: one for the daemon (asyncio) and for the CNI plugin (blocking).

The kernel carries a request out inside `send` and has queued its answer when `send` returns; nothing here ever waits.
So an event loop may call these methods, as long as it keeps its batches small; only dumps are long, and they come as
a generator that an asynchronous caller may pause between two reads.
"""

from __future__ import annotations

# The C half of `socket`: nothing of the other half is needed here, and its import takes the CNI plugin 4 ms.
import _socket
import os
import struct

from flanneld_py.core.errors import KernelError
from flanneld_py.core.named_tuple import TYPE_CHECKING
from flanneld_py.kernel import errnos, netlink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType
    from typing import Any, Self, TypeVar

    from flanneld_py.kernel.netlink import Message, Request

    Entry = TypeVar("Entry")

_NETLINK_ROUTE = 0
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_SO_RCVBUFFORCE = 33

_RECEIVE_SIZE = 1 << 17
_NOTIFICATIONS_SIZE = 1 << 16
_RECEIVE_BUFFER = 1 << 20
"""Bytes; holds the errors of a whole batch in which every operation fails."""

_PATIENCE = struct.pack("@ll", 10, 0)
"""struct timeval; an answer that was dropped raises an error after these seconds in place of blocking for ever."""

_DUMP_TRIES = 10
"""A dump during which the table changed says so (NLM_F_DUMP_INTR) and is read anew this many times."""
_ENDS = (netlink.NLMSG_DONE, netlink.NLMSG_ERROR)


class NetlinkSocket:
    """Requests, batches and dumps. Not safe for use by several threads at once.

    While a dump is paused the socket is good for nothing else: what else it reads would be taken for the dump's.
    """

    def __init__(self, protocol: int = _NETLINK_ROUTE) -> None:
        self._socket = open_netlink_socket(_RECEIVE_BUFFER, protocol)
        self._socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, _PATIENCE)
        self._sequence = 0
        self.port: int = self._socket.getsockname()[0]

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def execute(self, request: Request, operation: str) -> None:
        """Carry out one request; raise KernelError naming the operation."""
        failed = self.execute_batch((request,))
        if failed:
            errno, reason = failed[0]
            raise KernelError(errno, operation, reason)

    def execute_batch(self, requests: Sequence[Request]) -> dict[int, tuple[int, str]]:
        """Carry out many requests in one system call, in their order; one that fails does not stop the others.

        Returns for each that failed, by its index, the errno and the reason in words. Only the last request asks
        for an acknowledgement: the kernel answers in order, so its answer ends the batch.
        """
        if not requests:
            return {}
        first = self._sequence + 1
        last = len(requests) - 1
        self._sequence += len(requests)
        self._socket.send(netlink.encode_batch(requests, first, last))
        failed: dict[int, tuple[int, str]] = {}
        for message in self._answers():
            if message.kind != netlink.NLMSG_ERROR:
                continue
            index = message.sequence - first
            errno, text = netlink.decode_error(message)
            if errno and index >= 0:
                failed[index] = (errno, text or os.strerror(errno))
            if index == last:
                break
        return failed

    def query(self, request: Request, operation: str) -> Message:
        """Ask for one object and return the answer; raise KernelError naming the operation."""
        self._sequence += 1
        self._socket.send(netlink.encode_request(request, self._sequence))
        for message in self._answers():
            if message.sequence != self._sequence:
                continue
            if message.kind == netlink.NLMSG_ERROR:
                errno, text = netlink.decode_error(message)
                raise KernelError(errno, operation, text or os.strerror(errno))
            return message
        raise AssertionError("unreachable: the answers end by an exception")

    def dump(self, request: Request, decode: Callable[[Message], Entry | None], operation: str) -> list[Entry]:
        """Read a whole table; `decode` returns None for what is of no interest. Raises KernelError."""
        entries: list[Entry] = []
        for entries in self.dump_steps(request, decode, operation):  # noqa: B007 - the last one is the result
            pass
        return entries

    def dump_steps(
        self, request: Request, decode: Callable[[Message], Entry | None], operation: str
    ) -> Iterator[list[Entry]]:
        """Read a whole table step by step: yields the growing list after each read, at the end complete.

        A dump that the kernel marks as interrupted is begun anew with an empty list. Raises KernelError.
        """
        entries: list[Entry] = []

        def take(data: memoryview, offset: int) -> None:
            entry = decode(netlink.message_at(data, offset))
            if entry is not None:
                entries.append(entry)

        for _ in self._dump_reads(request, entries.clear, take, operation):
            yield entries

    def digest_steps(
        self,
        request: Request,
        peek: Callable[[memoryview, int], tuple[Any, ...] | None],
        operation: str,
        sum_up: Callable[[memoryview, int], int | None] | None = None,
    ) -> Iterator[int]:
        """Read a whole table step by step and keep nothing of it but the sum of its entries' hashes.

        `peek` reads the message at an offset, or returns None for what is of no interest. `sum_up` returns at once what
        all messages of a read add to the sum, of which this is the sequence number; None where it cannot tell, and each
        is peeked at. Raises KernelError.
        """
        digest = 0

        def begin() -> None:
            nonlocal digest
            digest = 0

        def take(data: memoryview, offset: int) -> None:
            nonlocal digest
            entry = peek(data, offset)
            if entry is not None:
                digest += hash(entry)

        def take_all(data: memoryview) -> bool:
            nonlocal digest
            part = sum_up(data, self._sequence) if sum_up else None
            digest += part or 0
            return part is not None

        for _ in self._dump_reads(request, begin, take, operation, take_all):
            yield digest

    def _dump_reads(
        self,
        request: Request,
        begin: Callable[[], None],
        take: Callable[[memoryview, int], None],
        operation: str,
        take_all: Callable[[memoryview], bool] = lambda _: False,
    ) -> Iterator[None]:
        """Hand each message of a dump, by its offset, to `take`, unless `take_all` has taken all messages of a read.

        Yields after each read; begins anew with `begin` if interrupted.
        """
        for _ in range(_DUMP_TRIES):
            begin()
            interrupted, done = False, False
            self._sequence += 1
            self._socket.send(netlink.encode_request(request, self._sequence, netlink.NLM_F_DUMP))
            while not done:
                data = self._receive()
                for offset, kind, flags, sequence in () if take_all(data) else netlink.walk(data):
                    if sequence != self._sequence:
                        continue
                    interrupted |= bool(flags & netlink.NLM_F_DUMP_INTR)
                    if kind in _ENDS:
                        _raise_dump_error(netlink.message_at(data, offset), operation)
                        done = True
                        break
                    take(data, offset)
                yield
            if not interrupted:
                return
        raise KernelError(11, operation, "the table changed during each of many reads")

    def _answers(self) -> Iterator[Message]:
        while True:
            yield from netlink.decode_messages(self._receive())

    def _receive(self) -> memoryview:
        return memoryview(self._socket.recv(_RECEIVE_SIZE))


def _raise_dump_error(message: Message, operation: str) -> None:
    # NLMSG_DONE carries an errno as NLMSG_ERROR does, 0 when the dump is complete.
    if len(message.payload) < 4:
        return
    errno, text = netlink.decode_error(message)
    # A table that nothing was ever put into is not there (IPv4's main one in a new namespace): as good as empty.
    if errno and errno not in errnos.ABSENT:
        raise KernelError(errno, operation, text or os.strerror(errno))


def open_netlink_socket(receive_buffer: int, protocol: int = _NETLINK_ROUTE) -> _socket.socket:
    """Open a bound netlink socket in the calling thread's network namespace.

    `receive_buffer` is in bytes; beyond net.core.rmem_max it needs CAP_NET_ADMIN in the first user namespace, and is
    the system's maximum without.
    """
    opened = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, protocol)
    try:
        try:
            opened.setsockopt(_socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_buffer)
        except PermissionError:
            opened.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF, receive_buffer)
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            _set_if_known(opened, option)
        opened.bind((0, 0))
    except BaseException:
        opened.close()
        raise
    return opened


def join_group(opened: _socket.socket, group: int) -> None:
    """Have the socket receive the notifications of a multicast group (RTNLGRP_…)."""
    opened.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)


def receive_each(opened: _socket.socket) -> Iterator[memoryview]:
    """Yield what each read of a socket that holds notifications returns; never wait. Raises OSError, ENOBUFS if some
    were lost: whatever happens from then on is told again.
    """
    lost: OSError | None = None
    while True:
        try:
            data = opened.recv(_NOTIFICATIONS_SIZE, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
        except OSError as error:
            if error.errno not in errnos.LOST:
                raise
            # Until the socket is empty the kernel drops all that comes, and says so no more (net/netlink/af_netlink.c,
            # netlink_overrun).
            lost = error
        else:
            if lost is None:
                yield memoryview(data)
    if lost is not None:
        raise lost


def receive_all(opened: _socket.socket) -> Iterator[Message]:
    """Yield the notifications that a socket holds; never wait for one. Raises as `receive_each`."""
    for data in receive_each(opened):
        yield from netlink.decode_messages(data)


def _set_if_known(opened: _socket.socket, option: int) -> None:
    # Kernels before 4.20 lack the youngest of these; everything works without them, with fewer words in errors.
    try:
        opened.setsockopt(_SOL_NETLINK, option, 1)
    except OSError as error:
        if error.errno not in errnos.UNKNOWN_OPTION:
            raise
