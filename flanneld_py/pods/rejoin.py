"""Containers whose bridge somebody deleted: put on the new one.

Deleting the bridge is what is commonly advised where it has an address of an earlier lease. The containers' devices
outlive it, and would be ports of nothing until each container is made anew. The new bridge has the MAC of the former
one, so what containers remember of their gateway stays true.
"""

from __future__ import annotations

from flanneld_py.core.errors import KernelError
from flanneld_py.core.named_tuple import TYPE_CHECKING
from flanneld_py.core.prefix import parse_address
from flanneld_py.kernel import errnos, veth
from flanneld_py.kernel import link as links
from flanneld_py.pods.host_local import AddressStore
from flanneld_py.pods.label import read_label
from flanneld_py.pods.pod_link import connect

if TYPE_CHECKING:
    from flanneld_py.kernel.link import Link
    from flanneld_py.kernel.netlink_socket import NetlinkSocket
    from flanneld_py.pods.bridge_conf import BridgeConf


def rejoin(sock: NetlinkSocket, conf: BridgeConf, bridge: Link) -> None:
    """Make ports of a new bridge of the network's containers that have addresses of its subnets.

    Raises KernelError, OSError.
    """
    lost = {
        label[1:]: end
        for end in veth.read_near_ends(sock)
        if not end.master and (label := read_label(end.alias)) and label.network == conf.ipam.store.network
    }
    if not lost:
        return
    for end in (lost[holder] for holder in _holders_of(conf) if holder in lost):
        found = links.read_link_at(sock, end.ifindex)
        try:
            if found is not None:
                connect(sock, conf, bridge, found.name)
        except KernelError as error:
            if not errnos.is_absent(error):
                raise


def _holders_of(conf: BridgeConf) -> set[tuple[str, str]]:
    """Return who holds an address of the subnets, as container and device."""
    found = set()
    with AddressStore(conf.ipam.store) as store:
        for holder in store.held():
            family, address = parse_address(holder.name)
            if any(subnet.family == family and subnet.holds(address) for subnet in conf.ipam.subnets):
                found.add((holder.container_id, holder.ifname))
    return found
