"""The wires under the lab: a router with one bridge per subnet, and a veth pair from it to each node and to etcd.

The only module that builds links, addresses and routes; it does so with pyroute2, in the namespaces of
`places.py`. The router's bridges are named after the subnets and their ports after the nodes; a capture on a
node's port sees all that the node sends and receives.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from netns_lab.namespaces import in_network
from netns_lab.places import make_plain_place, plain_place
from netns_lab.topology import IPV6, ROUTER, Topology, Underlay

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pyroute2 import IPRoute

    from netns_lab.topology import Interface

UPLINK = "eth0"
IFA_F_NODAD = 0x02  # linux/if_addr.h: an IPv6 address is usable at once


def open_netlink(network: Path) -> IPRoute:
    """Return a netlink socket in that network namespace."""
    from pyroute2 import IPRoute  # 0.2 s, which commands that touch no device need not wait

    with in_network(network):
        return IPRoute()


def set_sysctl(network: Path, name: str, value: str) -> None:
    """Set /proc/sys/net/NAME in that network namespace."""
    with in_network(network):
        Path("/proc/sys/net", name).write_text(value)


def build_router(topology: Topology) -> None:
    """Make the router's namespace with a bridge, and so connected routes, for each underlay."""
    make_plain_place(ROUTER)
    router = plain_place(ROUTER).network
    set_sysctl(router, "ipv4/ip_forward", "1")
    set_sysctl(router, "ipv6/conf/all/forwarding", "1")
    with open_netlink(router) as netlink:
        raise_loopback(netlink)
        for underlay in (*topology.underlays, topology.etcd_underlay):
            netlink.link("add", ifname=underlay.name, kind="bridge", mtu=topology.mtu)
            bridge = netlink.link_lookup(ifname=underlay.name)[0]
            _add_addresses(netlink, bridge, underlay.gateways)
            netlink.link("set", index=bridge, state="up")


def plug_in(name: str, network: Path, underlay: Underlay, addresses: Sequence[Interface], mtu: int) -> None:
    """Give a namespace its eth0 in `underlay` with these addresses, and the router as its default gateways."""
    with network.open("rb") as target, open_netlink(plain_place(ROUTER).network) as netlink:
        peer = {"ifname": UPLINK, "mtu": mtu, "net_ns_fd": target.fileno()}
        netlink.link("add", ifname=name, kind="veth", mtu=mtu, peer=peer)
        port = netlink.link_lookup(ifname=name)[0]
        bridge = netlink.link_lookup(ifname=underlay.name)[0]
        netlink.link("set", index=port, master=bridge, state="up")
    with open_netlink(network) as netlink:
        raise_loopback(netlink)
        uplink = netlink.link_lookup(ifname=UPLINK)[0]
        _add_addresses(netlink, uplink, addresses)
        netlink.link("set", index=uplink, state="up")
        families = {address.version for address in addresses}
        for gateway in underlay.gateways:
            if gateway.version in families:
                every = str(gateway.network.supernet(new_prefix=0))
                netlink.route("add", dst=every, gateway=str(gateway.ip), oif=uplink)


def raise_loopback(netlink: IPRoute) -> None:
    """Set a namespace's own `lo` up, which begins down."""
    netlink.link("set", index=netlink.link_lookup(ifname="lo")[0], state="up")


def _add_addresses(netlink: IPRoute, index: int, addresses: Iterable[Interface]) -> None:
    for address in addresses:
        network = address.network
        extra = {"flags": IFA_F_NODAD} if address.version == IPV6 else {"broadcast": str(network.broadcast_address)}
        netlink.addr("add", index=index, address=str(address.ip), prefixlen=network.prefixlen, **extra)
