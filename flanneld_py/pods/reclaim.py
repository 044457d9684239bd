"""Addresses of containers that are gone: found by what stands in the kernel, and given back.

An ADD does this when its range has run out, and once after each boot of the machine. Evidence that an address is in
use is a device with its container's label, or, for devices without a label, which another plugin made, the address
itself in the namespace behind a port of the bridge. Where a port tells neither, nothing is reclaimed.
"""

from __future__ import annotations

import os
import time

from flanneld_py.core.named_tuple import TYPE_CHECKING
from flanneld_py.core.prefix import parse_address
from flanneld_py.kernel import address as addresses
from flanneld_py.kernel import veth
from flanneld_py.pods.garbage import drop
from flanneld_py.pods.host_local import AddressStore
from flanneld_py.pods.label import read_label

if TYPE_CHECKING:
    from flanneld_py.core.prefix import Prefix
    from flanneld_py.kernel.link import Link
    from flanneld_py.kernel.netlink_socket import NetlinkSocket
    from flanneld_py.pods.bridge_conf import IpamConf
    from flanneld_py.pods.garbage import Attachment
    from flanneld_py.pods.network_conf import NetworkConf

_GRACE = 60.0
"""Seconds for which an address counts as in use because its ADD may not have come to the device yet."""


def reclaim(sock: NetlinkSocket, network: NetworkConf, ipam: IpamConf, bridge: Link | None) -> bool:
    """Give back what containers that are gone hold; say whether there was any. Raises CniError, OSError."""
    stale = find_stale(sock, ipam, bridge)
    for (container_id, ifname), has_more in sorted(stale.items()):
        drop(network, ipam.store, container_id, ifname, keeps_file=has_more)
    return bool(stale)


def find_stale(sock: NetlinkSocket, ipam: IpamConf, bridge: Link | None) -> dict[Attachment, bool]:
    """Return who holds addresses and has no device, and whether the container has others.

    Raises KernelError, OSError.
    """
    ends = veth.read_near_ends(sock)
    labels = {label for label in (read_label(end.alias) for end in ends) if label is not None}
    labelled = {label[1:] for label in labels} | {(label.container_id, "") for label in labels}
    seen: set[tuple[int, int]] = set()
    for end in ends:
        if bridge is None or end.master != bridge.ifindex or read_label(end.alias) is not None:
            continue
        behind = _read_behind(sock, end, ipam.subnets)
        if not behind:
            return {}
        seen |= behind
    now = time.time()
    with AddressStore(ipam.store) as store:
        held = store.held()
        gone = [
            holder
            for holder in held
            if (holder.container_id, holder.ifname) not in labelled
            and parse_address(holder.name) not in seen
            and not 0 <= now - os.stat(holder.path).st_mtime < _GRACE
        ]
    alive = {label.container_id for label in labels} | {holder.container_id for holder in held if holder not in gone}
    return {(holder.container_id, holder.ifname): holder.container_id in alive for holder in gone}


def _read_behind(sock: NetlinkSocket, end: veth.NearEnd, subnets: tuple[Prefix, ...]) -> set[tuple[int, int]]:
    found = addresses.read_addresses_elsewhere(sock, end.far_namespace)
    return {
        (entry.family, entry.address)
        for entry in found
        if any(subnet.family == entry.family and subnet.holds(entry.address) for subnet in subnets)
    }
