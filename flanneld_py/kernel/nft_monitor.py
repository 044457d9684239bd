"""The kernel's notifications about nf_tables, read as which tables others may have changed."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from flanneld_py.kernel import errnos, netlink, nf_tables
from flanneld_py.kernel.netlink_socket import join_group, receive_all
from flanneld_py.kernel.socket_filter import is_sent_by, leave_out

if TYPE_CHECKING:
    from flanneld_py.kernel.netlink import Message

_TABLE = 1
"""The attribute that names the table, in every message about something in one."""


class NftMonitor:
    """Notifications about tables by name; what the netlink port `own_port` changes is left out."""

    def __init__(self, tables: frozenset[str], own_port: int) -> None:
        self._tables = tables
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, nf_tables.NETLINK_NETFILTER
        )
        leave_out(self._socket, (is_sent_by(own_port),))
        self._socket.bind((0, 0))
        join_group(self._socket, nf_tables.NFNLGRP_NFTABLES)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def read_changed(self) -> frozenset[str]:
        """Return the tables that others may have changed since the last call; all, if notifications were lost."""
        try:
            return frozenset(table for message in receive_all(self._socket) if (table := self._changed_table(message)))
        except OSError as error:
            if error.errno not in errnos.LOST:
                raise
            return self._tables

    def _changed_table(self, message: Message) -> str:
        if message.kind == nf_tables.NEWGEN:
            return ""
        named = netlink.decode_attributes(message.payload, nf_tables.GENERIC.size).get(_TABLE)
        table = "" if named is None else netlink.decode_text(named)
        return table if table in self._tables else ""
