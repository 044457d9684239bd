"""What a former backend of this node left in the kernel: found before the present one works, taken away after.

Former devices are those named and made as flannel daemons do, with an address of this node's subnets or networks, that
the present backend does not want. Former nexthops are those that routes of ours into our networks go by, outside the
present backend's range. Former routes need no looking for: they go with these two, or the reconciler prunes them.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from flanneld_py.core.entries import PROTOCOL_FLANNELD
from flanneld_py.core.errors import KernelError
from flanneld_py.core.prefix import Prefix
from flanneld_py.kernel import nexthop, route
from flanneld_py.kernel.address import read_addresses
from flanneld_py.kernel.link import delete_link, read_link, read_links
from flanneld_py.kernel.own_devices import is_own_device

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from flanneld_py.kernel.link import Link
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

log = logging.getLogger(__name__)

_PATIENCE = 10.0
"""Seconds that the present backend is given to lead to all peers; after that, the former one may be in its way."""
_BATCH = 40


class Former(NamedTuple):
    """What is to go: devices, and nexthops by their ids."""

    devices: tuple[Link, ...]
    nexthops: tuple[int, ...]


def find_former(
    sock: NetlinkSocket,
    wanted: Collection[str],
    networks: Sequence[Prefix],
    subnets: Sequence[Prefix],
    nexthop_ids: Collection[int],
) -> Former:
    """Look for it; `wanted` are the names of the present devices. Raises KernelError."""
    homes = (*networks, *subnets)
    at_home = {
        entry.ifindex
        for entry in read_addresses(sock)
        if any(home.family == entry.family and home.holds(entry.address) for home in homes)
    }
    devices = tuple(
        link for link in read_links(sock) if is_own_device(link) and link.name not in wanted and link.ifindex in at_home
    )
    return Former(devices, tuple(_find_nexthops(sock, networks, nexthop_ids)))


def _find_nexthops(sock: NetlinkSocket, networks: Sequence[Prefix], present: Collection[int]) -> set[int]:
    found: set[int] = set()

    def look(data: memoryview, offset: int) -> tuple[Any, ...] | None:
        entry = route.peek(data, offset)
        if entry is not None and entry[2] and entry[6] == PROTOCOL_FLANNELD and entry[2] not in present:
            dst = Prefix(*entry[0])
            if any(network.contains(dst) for network in networks):
                found.add(entry[2])
        return None

    for family in {network.family for network in networks}:
        for _ in sock.digest_steps(route.encode_dump(family), look, "look for former routes"):
            pass
    return found


async def remove_former(sock: NetlinkSocket, former: Former, synced: asyncio.Event) -> None:
    """Take it away once the present backend leads to all peers, so that no packet is lost that could be carried."""
    if not former.devices and not former.nexthops:
        return
    try:
        async with asyncio.timeout(_PATIENCE):
            await synced.wait()
    except TimeoutError:
        log.warning("former backend removed before the present one works: it may be in its way")
    for start in range(0, len(former.nexthops), _BATCH):
        try:
            # One that is gone is as it should be.
            sock.execute_batch([nexthop.encode_delete_id(ident) for ident in former.nexthops[start : start + _BATCH]])
        except OSError as error:
            log.warning("nexthops of a former backend stay: reason=%s", error)
        await asyncio.sleep(0)
    for link in former.devices:
        try:
            there = read_link(sock, link.name)
            if there is not None and there.ifindex == link.ifindex:
                delete_link(sock, link.ifindex)
        except KernelError as error:
            log.warning("device of a former backend stays: name=%s reason=%s", link.name, error)
        else:
            log.info("device of a former backend removed: name=%s", link.name)
    log.info("former backend removed: devices=%d nexthops=%d", len(former.devices), len(former.nexthops))
