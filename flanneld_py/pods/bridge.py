"""The bridge that containers of this node share: there, up, and carrying the gateway's address.

Idempotent: it makes what is missing, and leaves alone what is as wanted.
"""

from __future__ import annotations

import os

from flanneld_py.core.errors import KernelError
from flanneld_py.core.named_tuple import TYPE_CHECKING
from flanneld_py.core.prefix import IPV4, IPV6, Prefix, format_address, host_mask
from flanneld_py.kernel import address as addresses
from flanneld_py.kernel import bridge as bridges
from flanneld_py.kernel import errnos, netlink, sysctl
from flanneld_py.kernel import link as links
from flanneld_py.pods import errors
from flanneld_py.pods.bridge_conf import gateway_of
from flanneld_py.pods.errors import CniError

if TYPE_CHECKING:
    from flanneld_py.kernel.link import Link
    from flanneld_py.kernel.netlink_socket import NetlinkSocket
    from flanneld_py.pods.bridge_conf import BridgeConf

_FORWARDING = {IPV4: ("net", "ipv4", "ip_forward"), IPV6: ("net", "ipv6", "conf", "all", "forwarding")}


def random_mac() -> bytes:
    """Return a random MAC, locally administered and unicast."""
    mac = os.urandom(6)
    return bytes((mac[0] & 0xFE | 0x02,)) + mac[1:]


def _lasting_mac(subnets: tuple[Prefix, ...]) -> bytes:
    """Return a MAC that no other node's bridge has and a bridge made anew has again, made of the gateway's address."""
    if not subnets:
        return random_mac()
    gateway = gateway_of(subnets[0])
    folded = gateway ^ gateway >> 32 ^ gateway >> 64 ^ gateway >> 96
    return b"\x0a\x58" + (folded & 0xFFFFFFFF).to_bytes(4, "big")


def ensure_bridge(sock: NetlinkSocket, conf: BridgeConf) -> tuple[Link, bool]:
    """Have the bridge, up, with the wanted MTU; say whether it is a new one.

    Raises KernelError, CniError if the name is another device's.
    """
    found = links.read_link(sock, conf.bridge)
    is_new = found is None
    if found is None:
        bridges.create_bridge(sock, conf.bridge, _lasting_mac(conf.ipam.subnets), conf.mtu)
        refuse_router_advertisements(conf.bridge)
        found = links.read_link(sock, conf.bridge)
    if found is None or found.kind != bridges.KIND:
        raise CniError(
            errors.INTERNAL,
            f"the device {conf.bridge} is no bridge",
            "delete it, or name another one as `bridge` of the delegate",
        )
    attributes = []
    if conf.mtu and found.mtu != conf.mtu:
        attributes.append(netlink.encode_u32(links.IFLA_MTU, conf.mtu))
    wanted_flags = links.IFF_UP | (links.IFF_PROMISC if conf.promiscuous else 0)
    if attributes or found.flags & wanted_flags != wanted_flags:
        request = links.encode_set(found.ifindex, *attributes, flags=wanted_flags)
        sock.execute(request, f"bring up the bridge {conf.bridge}")
    return found._replace(mtu=conf.mtu or found.mtu), is_new


def refuse_router_advertisements(device: str) -> None:
    """Keep a device that containers can reach from taking routes and addresses from them."""
    try:
        sysctl.ensure_sysctl("0", "net", "ipv6", "conf", device, "accept_ra")
    except KernelError as error:
        if not errnos.is_absent(error):  # a kernel without IPv6 has none to accept
            raise


def ensure_gateways(sock: NetlinkSocket, bridge: Link, subnets: tuple[Prefix, ...], *, force: bool) -> None:
    """Have the bridge carry the gateway of each subnet, and the node forward packets. Raises as ensure_bridge."""
    held = addresses.read_addresses(sock, bridge.ifindex)
    for subnet in subnets:
        wanted = addresses.InterfaceAddress(bridge.ifindex, subnet.family, gateway_of(subnet), subnet.length)
        if not any(_is_same(entry, wanted) for entry in held):
            _drop_rivals(sock, bridge, wanted, [entry for entry in held if _rivals(entry, wanted)], force=force)
            addresses.ensure_address(sock, wanted)
            # A bridge that another plugin made follows its ports' MACs until it is given its own as its own.
            links.set_link(sock, bridge.ifindex, netlink.encode_attribute(links.IFLA_ADDRESS, bridge.mac))
        sysctl.ensure_sysctl("1", *_FORWARDING[subnet.family])


def _is_same(entry: addresses.InterfaceAddress, wanted: addresses.InterfaceAddress) -> bool:
    return entry[1:4] == wanted[1:4]


def _rivals(entry: addresses.InterfaceAddress, wanted: addresses.InterfaceAddress) -> bool:
    # As in the reference plugin: one IPv4 address at all, IPv6 ones whose subnets do not overlap.
    if entry.family != wanted.family or entry.scope != addresses.SCOPE_GLOBAL:
        return False
    return entry.family == IPV4 or _subnet(entry).overlaps(_subnet(wanted))


def _subnet(entry: addresses.InterfaceAddress) -> Prefix:
    return Prefix(entry.family, entry.address & ~host_mask(entry.family, entry.length), entry.length)


def _drop_rivals(
    sock: NetlinkSocket,
    bridge: Link,
    wanted: addresses.InterfaceAddress,
    rivals: list[addresses.InterfaceAddress],
    *,
    force: bool,
) -> None:
    if not rivals:
        return
    if not force and any(link.master == bridge.ifindex for link in links.read_links(sock)):
        texts = ", ".join(f"{format_address(entry.family, entry.address)}/{entry.length}" for entry in rivals)
        new = f"{format_address(wanted.family, wanted.address)}/{wanted.length}"
        raise CniError(
            errors.INTERNAL,
            f"{bridge.name} has the address {texts}, not {new}, and containers that may use it",
            f"remove these containers, or set forceAddress in the delegate, or run: ip link delete {bridge.name}",
        )
    for entry in rivals:
        addresses.delete_address(sock, entry)
