"""What a former backend of this node left in the kernel: found before the present one works, taken away after.

Former devices are those named and made as flannel daemons do, with an address of this node's subnets or networks, that
the present backend does not want. Former nexthops are those that routes of ours into our networks go by, outside the
present backend's range. Former guards are those of former devices, or of devices that are there no more; one whose
device another daemon keeps for another network is not. Former routes need no looking for: they go with devices and
nexthops, or the reconciler prunes them.
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
from flanneld_py.kernel.guard_table import drop_guard, read_guards
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
    """What is to go: devices, nexthops by their ids, and guards by the names of their devices."""

    devices: tuple[Link, ...]
    nexthops: tuple[int, ...]
    guards: tuple[str, ...]


class Present(NamedTuple):
    """What is to stay: the present backend's devices by name, the ids of its nexthops, and its guard if it has one."""

    devices: Collection[str]
    nexthop_ids: Collection[int]
    guard: str = ""


def find_former(sock: NetlinkSocket, present: Present, networks: Sequence[Prefix], subnets: Sequence[Prefix]) -> Former:
    """Look for it in this node's `networks`, and among what carried its `subnets`. Raises KernelError."""
    homes = (*networks, *subnets)
    at_home = {
        entry.ifindex
        for entry in read_addresses(sock)
        if any(home.family == entry.family and home.holds(entry.address) for home in homes)
    }
    links = read_links(sock)
    devices = tuple(
        link for link in links if is_own_device(link) and link.name not in present.devices and link.ifindex in at_home
    )
    others = {link.name for link in links}.difference(present.devices, (link.name for link in devices))
    guards = _read_guards() - others - {present.guard}
    return Former(devices, tuple(_find_nexthops(sock, networks, present.nexthop_ids)), tuple(guards))


def _read_guards() -> set[str]:
    try:
        return read_guards()
    except OSError as error:
        log.debug("former guards not looked for: reason=%s", error)
        return set()


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
    if former == ((), (), ()):
        return
    try:
        async with asyncio.timeout(_PATIENCE):
            await synced.wait()
    except TimeoutError:
        log.warning("former backend removed before the present one works: it may be in its way")
    await _remove_nexthops(sock, former.nexthops)
    for name in former.guards:
        _remove_guard(name)
    for link in former.devices:
        _remove_device(sock, link)
    log.info("former backend removed: devices=%d nexthops=%d guards=%d", *map(len, former))


async def _remove_nexthops(sock: NetlinkSocket, idents: Sequence[int]) -> None:
    for start in range(0, len(idents), _BATCH):
        try:
            # One that is gone is as it should be.
            sock.execute_batch([nexthop.encode_delete_id(ident) for ident in idents[start : start + _BATCH]])
        except OSError as error:
            log.warning("nexthops of a former backend stay: reason=%s", error)
        await asyncio.sleep(0)


def _remove_guard(name: str) -> None:
    try:
        drop_guard(name)
    except KernelError as error:
        log.warning("guard of a former backend stays: device=%s reason=%s", name, error)
    else:
        log.info("guard removed: device=%s", name)


def _remove_device(sock: NetlinkSocket, link: Link) -> None:
    try:
        there = read_link(sock, link.name)
        if there is not None and there.ifindex == link.ifindex:
            delete_link(sock, link.ifindex)
    except KernelError as error:
        log.warning("device of a former backend stays: name=%s reason=%s", link.name, error)
    else:
        log.info("device of a former backend removed: name=%s", link.name)
