"""veth pairs: one end here, the other straight in another network namespace (include/uapi/linux/veth.h)."""

from __future__ import annotations

from flanneld_py.core.named_tuple import TYPE_CHECKING, NamedTuple
from flanneld_py.kernel import link as links
from flanneld_py.kernel import netlink
from flanneld_py.kernel.netlink import Message, Request

if TYPE_CHECKING:
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

KIND = "veth"

_VETH_INFO_PEER = 1


class VethEnd(NamedTuple):
    """One end of a pair that is to be made."""

    name: str
    mac: bytes


def encode_create(near: VethEnd, far: VethEnd, *, mtu: int, far_namespace: int) -> Request:
    """Write the request that makes a pair: the near end up, the far one down.

    `far_namespace` is a descriptor; `mtu` is of both ends in bytes, 0 leaves the kernel's default. The request fails
    with EEXIST if either name is taken, and then makes nothing.

    Each end has one queue, as without a word about it; but then the kernel makes one for each CPU and takes those that
    are left over away, and waits for it while nobody else may change a device (drivers/net/veth.c, veth_init_queues).
    """
    both = [netlink.encode_u32(kind, 1) for kind in (links.IFLA_NUM_TX_QUEUES, links.IFLA_NUM_RX_QUEUES)]
    if mtu:
        both.append(netlink.encode_u32(links.IFLA_MTU, mtu))
    peer = links.link_message(
        0,
        netlink.encode_text(links.IFLA_IFNAME, far.name),
        netlink.encode_attribute(links.IFLA_ADDRESS, far.mac),
        netlink.encode_u32(links.IFLA_NET_NS_FD, far_namespace),
        *both,
    )
    payload = links.link_message(
        0,
        netlink.encode_text(links.IFLA_IFNAME, near.name),
        netlink.encode_attribute(links.IFLA_ADDRESS, near.mac),
        *both,
        netlink.encode_nested(
            links.IFLA_LINKINFO,
            netlink.encode_text(links.IFLA_INFO_KIND, KIND),
            netlink.encode_nested(links.IFLA_INFO_DATA, netlink.encode_attribute(_VETH_INFO_PEER, peer)),
        ),
        flags=links.IFF_UP,
        change=links.IFF_UP,
    )
    return Request(links.RTM_NEWLINK, netlink.NLM_F_CREATE | netlink.NLM_F_EXCL, payload)


class NearEnd(NamedTuple):
    """An end that is here, whose other end is elsewhere; `far_namespace` is that namespace's id as seen from here.

    `master` is 0 for no bridge, `alias` empty for none.
    """

    ifindex: int
    master: int
    alias: str
    far_namespace: int


def decode_near_end(message: Message) -> NearEnd | None:
    """Read RTM_NEWLINK; None if it is no veth device, or one with both ends here."""
    found = links.decode_link(message)
    if found is None or found.kind != KIND:
        return None
    attributes = links.decode_link_attributes(message)
    identity = attributes.get(links.IFLA_LINK_NETNSID)
    if identity is None:
        return None
    alias = netlink.decode_text(attributes.get(links.IFLA_IFALIAS, memoryview(b"")))
    return NearEnd(found.ifindex, found.master, alias, netlink.decode_u32(identity))


def read_near_ends(sock: NetlinkSocket) -> list[NearEnd]:
    """Return all ends here whose other ends are in other namespaces. Raises KernelError."""
    return sock.dump(links.encode_get(), decode_near_end, "read veth devices")
