"""Bridges and their ports (IFLA_BRPORT_… of include/uapi/linux/if_link.h)."""

from __future__ import annotations

from flanneld_py.core.errors import KernelError
from flanneld_py.core.named_tuple import TYPE_CHECKING, NamedTuple
from flanneld_py.kernel import errnos, netlink
from flanneld_py.kernel import link as links
from flanneld_py.kernel.netlink import Message, Request

if TYPE_CHECKING:
    from flanneld_py.kernel.link import Link
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

KIND = "bridge"

_IFLA_INFO_SLAVE_KIND = 4
_IFLA_INFO_SLAVE_DATA = 5
_IFLA_BRPORT_STATE = 1
_IFLA_BRPORT_MODE = 4
_IFLA_BRPORT_ISOLATED = 33
_BR_STATE_FORWARDING = 3

_EMPTY = memoryview(b"")


class Port(NamedTuple):
    """A port of a bridge as the kernel holds it; `link` is what it is as a device."""

    link: Link
    is_forwarding: bool
    is_hairpin: bool
    is_isolated: bool


def create_bridge(sock: NetlinkSocket, name: str, mac: bytes, mtu: int) -> None:
    """Create a bridge, down; one that is there already is no error. `mtu` in bytes, 0 leaves the kernel's default.

    A bridge without a MAC of its own takes the lowest of its ports', and changes it as they come and go; one that
    is given at creation stays (net/bridge/br_stp_if.c, br_stp_recalculate_bridge_id).
    """
    attributes = [netlink.encode_attribute(links.IFLA_ADDRESS, mac)]
    if mtu:
        attributes.append(netlink.encode_u32(links.IFLA_MTU, mtu))
    try:
        links.create_link(sock, name, KIND, b"", *attributes)
    except KernelError as error:
        if not errnos.is_present(error):
            raise


def encode_port(name: str, bridge: int, *, hairpin: bool, isolated: bool) -> tuple[Request, Request]:
    """Write the requests that make a device a port of the bridge with this index, and set the port's options."""
    named = netlink.encode_text(links.IFLA_IFNAME, name)
    options = [netlink.encode_u8(_IFLA_BRPORT_MODE, hairpin)]
    if isolated:  # a port is not at first, and kernels before 4.18 do not know the attribute
        options.append(netlink.encode_u8(_IFLA_BRPORT_ISOLATED, 1))
    info = netlink.encode_nested(
        links.IFLA_LINKINFO,
        netlink.encode_text(_IFLA_INFO_SLAVE_KIND, KIND),
        netlink.encode_nested(_IFLA_INFO_SLAVE_DATA, *options),
    )
    return (
        Request(links.RTM_NEWLINK, 0, links.link_message(0, named, netlink.encode_u32(links.IFLA_MASTER, bridge))),
        Request(links.RTM_NEWLINK, 0, links.link_message(0, named, info)),
    )


def decode_port(message: Message) -> Port | None:
    """Read RTM_NEWLINK; None if the device is no bridge's port."""
    found = links.decode_link(message)
    attributes = links.decode_link_attributes(message)
    info = netlink.decode_attributes(attributes.get(links.IFLA_LINKINFO, _EMPTY))
    if found is None or netlink.decode_text(info.get(_IFLA_INFO_SLAVE_KIND, _EMPTY)) != KIND:
        return None
    options = netlink.decode_attributes(info.get(_IFLA_INFO_SLAVE_DATA, _EMPTY))
    return Port(
        found,
        bytes(options.get(_IFLA_BRPORT_STATE, b"")) == bytes((_BR_STATE_FORWARDING,)),
        any(options.get(_IFLA_BRPORT_MODE, b"")),
        any(options.get(_IFLA_BRPORT_ISOLATED, b"")),
    )


def read_port(sock: NetlinkSocket, name: str) -> Port | None:
    """Return the port that a device is; None if it is no port, or is not there at all. Raises KernelError."""
    request = links.encode_get(0, netlink.encode_text(links.IFLA_IFNAME, name))
    try:
        return decode_port(sock.query(request, f"read bridge port {name}"))
    except KernelError as error:
        if errnos.is_absent(error):
            return None
        raise
