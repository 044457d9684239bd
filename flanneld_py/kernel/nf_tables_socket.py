"""The socket to nf_tables: batches that are carried out whole or not at all, and what there is, read.

What messages are made of stands in `nf_tables`. No nft, and no library for it, need be installed. It imports next to
nothing, because the CNI plugin pays for every import.
"""

from __future__ import annotations

import _socket
import os
import struct

from flanneld_py.core.errors import KernelError
from flanneld_py.core.named_tuple import TYPE_CHECKING
from flanneld_py.kernel import errnos, netlink, nf_tables
from flanneld_py.kernel.netlink import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Self, TypeVar

    from flanneld_py.kernel.netlink import Message

    Entry = TypeVar("Entry")

_SIZE = 1 << 17
_PATIENCE = struct.pack("@ll", 10, 0)


class NfTables:
    """A socket to nf_tables, of the network namespace that the calling thread is in when it is opened."""

    def __init__(self) -> None:
        self._socket = _socket.socket(
            _socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, nf_tables.NETLINK_NETFILTER
        )
        self._socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, _PATIENCE)
        self._socket.bind((0, 0))
        self._sequence = 0
        self.port: int = self._socket.getsockname()[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def execute(self, requests: Sequence[Request], operation: str) -> None:
        """Carry out all requests or none. Raises KernelError."""
        mark = nf_tables.GENERIC.pack(0, 0, nf_tables.SUBSYSTEM)
        batch = [Request(nf_tables.BATCH_BEGIN, 0, mark), *requests, Request(nf_tables.BATCH_END, 0, mark)]
        first = self._sequence + 1
        self._sequence += len(batch)
        # The answer to the last request tells that all are through; the kernel answers those that fail besides.
        last = len(batch) - 2
        self._send(netlink.encode_batch(batch, first, last))
        for answer in self._answers(first):
            errno, said = netlink.decode_error(answer)
            if errno:
                raise KernelError(errno, operation, said or os.strerror(errno))
            if answer.sequence == first + last:
                return

    def dump(self, request: Request, decode: Callable[[Message], Entry]) -> list[Entry]:
        """Read all that there is of a kind; what lies in a table that is not there is nothing. Raises KernelError."""
        while True:
            self._sequence += 1
            self._send(netlink.encode_request(request, self._sequence, netlink.NLM_F_DUMP))
            found, interrupted = [], False
            for answer in self._answers(self._sequence):
                interrupted |= bool(answer.flags & netlink.NLM_F_DUMP_INTR)
                if answer.kind in {netlink.NLMSG_DONE, netlink.NLMSG_ERROR}:
                    errno, said = netlink.decode_error(answer)
                    if errno and errno not in errnos.ABSENT:
                        raise KernelError(errno, "read nf_tables", said or os.strerror(errno))
                    break
                found.append(decode(answer))
            if not interrupted:
                return found

    def read_chains(self, family: int, table: str) -> list[str]:
        """Return the names of a table's chains. Raises KernelError."""
        found = self.dump(nf_tables.message(nf_tables.GETCHAIN, family), nf_tables.decode_chain_name)
        return [name for where, name in found if where == table]

    def holds(self, family: int, table: str, wanted: Sequence[Request]) -> bool:
        """Say whether a table holds just these chains and rules, each chain's in this order. Raises KernelError."""
        chains = self.dump(nf_tables.get_chains(family), nf_tables.payload_of)
        rules = self.dump(nf_tables.get_rules(family, table), nf_tables.payload_of)
        return nf_tables.is_made_of(table, chains, rules, wanted)

    def read(self, request: Request) -> Message | None:
        """Read one thing; None where there is none. Raises KernelError."""
        self._sequence += 1
        self._send(netlink.encode_request(request, self._sequence))
        answer = next(self._answers(self._sequence))
        if answer.kind != netlink.NLMSG_ERROR:
            return answer
        errno, said = netlink.decode_error(answer)
        if errno in errnos.ABSENT:
            return None
        raise KernelError(errno, "read nf_tables", said or os.strerror(errno))

    def _send(self, data: bytes) -> None:
        try:
            self._socket.send(data)
        except OSError as error:
            raise KernelError(error.errno or 0, "send to nf_tables", error.strerror or "") from error

    def _answers(self, first: int) -> Iterator[Message]:
        """Return the answers to requests from this sequence number on."""
        while True:
            for answer in netlink.decode_messages(memoryview(self._socket.recv(_SIZE))):
                if answer.sequence >= first:
                    yield answer


def read_tables() -> list[tuple[int, str]]:
    """Return all tables by family and name. Raises KernelError."""
    with NfTables() as opened:
        return opened.dump(nf_tables.message(nf_tables.GETTABLE, 0), nf_tables.decode_table)


def drop_table(family: int, table: str) -> None:
    """Take a table away, with all that is in it; having none is no error. Raises KernelError."""
    try:
        with NfTables() as opened:
            opened.execute([nf_tables.delete_table(family, table)], f"delete table {table}")
    except KernelError as error:
        if not errnos.is_absent(error):
            raise


def has_nf_tables() -> bool:
    """Say whether this kernel has nf_tables and lets us use it."""
    try:
        with NfTables() as opened:
            return opened.read(nf_tables.message(nf_tables.GETGEN, 0)) is not None
    except OSError:
        return False
