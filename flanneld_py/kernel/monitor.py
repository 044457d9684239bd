"""The kernel's notifications, read as what may have changed under us.

Owns the socket and the reading of its messages. What a notification says is never taken over: it only tells which
table to read again, so a lost one (ENOBUFS) is just "read everything again".
"""

from __future__ import annotations

import errno
from contextlib import contextmanager
from enum import IntEnum, auto
from pathlib import Path
from typing import TYPE_CHECKING

from flanneld_py.core.entries import Kind
from flanneld_py.core.misses import MOST_WAITING
from flanneld_py.core.prefix import IPV6, Prefix
from flanneld_py.kernel import address, errnos, link, ndmsg, neighbour, netconf, netlink, nexthop, route
from flanneld_py.kernel.families import AF_BRIDGE
from flanneld_py.kernel.miss import decode_miss
from flanneld_py.kernel.netlink_socket import join_group, open_netlink_socket, receive_each
from flanneld_py.kernel.socket_filter import Holds, is_of_type, is_sent_by, leave_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flanneld_py.core.entries import FdbEntry
    from flanneld_py.core.misses import Miss
    from flanneld_py.kernel.dataplane import Scope
    from flanneld_py.kernel.netlink import Message

_RTNLGRP_LINK = 1
_RTNLGRP_NEIGH = 3
_RTNLGRP_IPV4_IFADDR = 5
_RTNLGRP_IPV4_ROUTE = 7
_RTNLGRP_IPV6_IFADDR = 9
_RTNLGRP_IPV6_ROUTE = 11
_RTNLGRP_IPV4_NETCONF = 24
_RTNLGRP_IPV6_NETCONF = 25
_RTNLGRP_NEXTHOP = 32

_NEW_FORWARDING_ENTRY = is_of_type(ndmsg.RTM_NEWNEIGH), Holds(AF_BRIDGE, 1, netlink.HEADER_SIZE)
"""The kernel names nobody there."""

_RECEIVE_BUFFER = 1 << 22
"""Bytes; a storm of some thousand notifications is borne before the kernel drops any."""


_MISSES_AT_ONCE = MOST_WAITING
"""Misses read at a stretch: as many as may wait, so that what is beyond is known as early as can be."""

_LINK_LOCAL = Prefix(IPV6, 0xFE80 << 112, 10)
_MULTICAST = Prefix(IPV6, 0xFF << 120, 8)


class Change(IntEnum):
    """What may be another now than what we last saw or wrote: the tables of `Kind`, and what they stand on."""

    DRIVEN = Kind.DRIVEN
    FDB = Kind.FDB
    NEIGHBOUR = Kind.NEIGHBOUR
    NEXTHOP = Kind.NEXTHOP
    ROUTE = Kind.ROUTE
    DEVICE = auto()
    """Our own device or an address on it."""
    UNDERLAY = auto()
    """The uplink, its addresses, or a route that is not ours."""


class Monitor:
    """Notifications about links, addresses, routes, neighbours and nexthops."""

    def __init__(self, own_port: int) -> None:
        """Begin to listen; what the netlink port `own_port` changed is left out where the kernel says who it was."""
        self._socket = open_netlink_socket(_RECEIVE_BUFFER)
        self._own = (is_sent_by(own_port),)
        leave_out(self._socket, self._own)
        self._socket.setblocking(False)
        self._misses: list[Miss] = []
        self.is_drained = True
        """Whether `read_changes` has read all that there was, rather than hurried back with misses."""
        self.stranger = 0
        """The netlink port of whoever was last named to have changed something of ours, 0 for nobody yet."""
        self._lost_misses = False
        for group in (
            _RTNLGRP_LINK,
            _RTNLGRP_NEIGH,
            _RTNLGRP_IPV4_IFADDR,
            _RTNLGRP_IPV4_ROUTE,
            _RTNLGRP_IPV6_IFADDR,
            _RTNLGRP_IPV6_ROUTE,
            _RTNLGRP_IPV4_NETCONF,
            _RTNLGRP_IPV6_NETCONF,
        ):
            join_group(self._socket, group)
        try:
            join_group(self._socket, _RTNLGRP_NEXTHOP)
        except OSError as error:
            # A kernel before 5.3 has no such group, and no nexthop objects to tell about.
            if error.errno != errno.EINVAL:
                raise

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def read_changes(self, scope: Scope, own_fdb: set[tuple[int, FdbEntry]]) -> set[Change]:
        """Return what may have changed since the last call; everything, if notifications were lost.

        The kernel does not say who changed a forwarding entry, so `own_fdb` holds the message types and entries of
        our own latest operations. While misses come as fast as they are read, returns to have them answered, with
        `is_drained` unset.
        """
        changes: set[Change] = set()
        self.is_drained = False
        try:
            for data in receive_each(self._socket):
                for message in netlink.decode_messages(data):
                    if message.kind == ndmsg.RTM_GETNEIGH:
                        self._note_miss(message, scope)
                        continue
                    found = _read_change(message, scope, own_fdb)
                    changes |= found
                    if found and message.port:
                        self.stranger = message.port
                if len(self._misses) >= _MISSES_AT_ONCE:
                    return changes
            self.is_drained = True
        except OSError as error:
            if error.errno not in errnos.LOST:
                raise
            self._lost_misses = True
            self.is_drained = True
            return set(Change)
        return changes

    @contextmanager
    def overlooking_fdb(self) -> Iterator[None]:
        """Hear of no new forwarding entries meanwhile, for a caller who writes a great many and looks afterwards."""
        leave_out(self._socket, self._own, _NEW_FORWARDING_ENTRY)
        try:
            yield
        finally:
            leave_out(self._socket, self._own)

    def take_misses(self) -> list[Miss]:
        """Return what the kernel has asked for, as far as `read_changes` has read, and forget it."""
        taken, self._misses = self._misses, []
        return taken

    def take_lost_misses(self) -> bool:
        """Say whether the kernel may have asked for more than `take_misses` has told, and forget it."""
        lost, self._lost_misses = self._lost_misses, False
        return lost

    def _note_miss(self, message: Message, scope: Scope) -> None:
        asked = decode_miss(message)
        if asked is not None and asked[0] in scope.devices.values():
            self._misses.append(asked[1])


def describe_port(port: int) -> str:
    """Return who has a netlink port, as far as that can be told: the kernel gives a process its pid as the first."""
    try:
        name = Path(f"/proc/{port}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "somebody"
    return f"{name} (pid {port})"


def _read_change(message: Message, scope: Scope, own_fdb: set[tuple[int, FdbEntry]]) -> set[Change]:
    match message.kind:
        case ndmsg.RTM_NEWNEIGH | ndmsg.RTM_DELNEIGH:
            return _read_neighbour_change(message, scope, own_fdb)
        case route.RTM_NEWROUTE | route.RTM_DELROUTE:
            return _read_route_change(message, scope)
        case nexthop.RTM_NEWNEXTHOP | nexthop.RTM_DELNEXTHOP:
            if nexthop.decode_id(message) not in scope.nexthop_ids:
                return set()
            # The IPv4 routes that used a deleted nexthop go with it, and nobody is told.
            return {Change.NEXTHOP} if message.kind == nexthop.RTM_NEWNEXTHOP else {Change.NEXTHOP, Change.ROUTE}
        case link.RTM_NEWLINK | link.RTM_DELLINK:
            changed = link.decode_link(message)
            return set() if changed is None else _device_change(changed.ifindex, scope, may_lose_routes=True)
        case address.RTM_NEWADDR | address.RTM_DELADDR:
            entry = address.decode_address(message)
            if entry is None or entry.scope == address.SCOPE_LINK:
                # Link-local addresses, and the check for duplicates of them, are the kernel's own affair.
                return set()
            return _device_change(entry.ifindex, scope, may_lose_routes=message.kind == address.RTM_DELADDR)
        case netconf.RTM_NEWNETCONF:
            is_ours = netconf.decode_ifindex(message) in {netconf.ALL_DEVICES, *scope.devices.values()}
            return {Change.DEVICE} if is_ours else set()
        case _:
            return set()


def _device_change(ifindex: int, scope: Scope, *, may_lose_routes: bool) -> set[Change]:
    if ifindex in scope.devices.values():
        return {Change.DEVICE}
    # Pods come and go with their devices; of the host's only the uplink matters.
    if ifindex != scope.uplink:
        return set()
    # Our direct routes go with a link that goes down, or with its last address, and nobody is told.
    return {Change.UNDERLAY, Change.NEXTHOP, Change.ROUTE} if may_lose_routes else {Change.UNDERLAY}


def _read_route_change(message: Message, scope: Scope) -> set[Change]:
    found = route.decode(message)
    if found is None or _is_link_local(found.dst):
        return set()
    if scope.owns(found):
        return {Change.ROUTE}
    # It may have taken the place of one of ours: then that is all that is said of it.
    return {Change.UNDERLAY, Change.ROUTE} if scope.may_replace_ours(found) else {Change.UNDERLAY}


def _is_link_local(dst: Prefix) -> bool:
    # The kernel makes such routes for every device that comes up; no packet between nodes follows one.
    return any(prefix.contains(dst) for prefix in (_LINK_LOCAL, _MULTICAST))


def _read_neighbour_change(message: Message, scope: Scope, own_fdb: set[tuple[int, FdbEntry]]) -> set[Change]:
    af, ifindex, is_permanent = neighbour.decode_header(message)
    if ifindex not in scope.devices.values():
        return set()
    if af == AF_BRIDGE:
        is_known = neighbour.is_repeated_fdb(message) or (message.kind, neighbour.decode_fdb(message)) in own_fdb
        return set() if is_known else {Change.FDB}
    # What the kernel resolves and forgets by itself is in nobody's name. A permanent neighbour that somebody deletes
    # is first told of, in his name, as one that has failed, and is permanent no more.
    return {Change.NEIGHBOUR} if is_permanent or message.port else set()
