"""The container's device: a veth pair between the bridge and its namespace, with addresses and routes.

What only an ADD needs is imported by it alone: a process of one call spends most of its time so.
"""

from __future__ import annotations

import os

from flanneld_py.core.errors import KernelError
from flanneld_py.core.named_tuple import TYPE_CHECKING, NamedTuple
from flanneld_py.core.prefix import IPV4
from flanneld_py.kernel import address as addresses
from flanneld_py.kernel import bridge as bridges
from flanneld_py.kernel import device_route as routes
from flanneld_py.kernel import errnos, netlink, sysctl, veth
from flanneld_py.kernel import link as links
from flanneld_py.kernel.netlink_socket import NetlinkSocket
from flanneld_py.kernel.netns import InNamespace, open_socket_inside
from flanneld_py.pods import errors
from flanneld_py.pods.bridge import random_mac, refuse_router_advertisements
from flanneld_py.pods.errors import CniError
from flanneld_py.pods.label import write_label

if TYPE_CHECKING:
    import _socket
    from collections.abc import Sequence

    from flanneld_py.kernel.link import Link
    from flanneld_py.kernel.netlink import Request
    from flanneld_py.pods.bridge_conf import BridgeConf
    from flanneld_py.pods.label import Label
    from flanneld_py.pods.result import PodAddress, PodRoute

_NAME_TRIES = 10
_PORT_WAITS = (0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 1.0, 0.0)
"""Seconds after each look at whether the port forwards; at the first look it nearly always does."""
_RUNNING_WAITS = (0.001, 0.005, 0.02, 0.1)
_DETECTION_LOOKS = 200
_DETECTION_PAUSE = 0.05


class PodEnd(NamedTuple):
    """The container's end of a pair; `sock` speaks to its namespace, IPv6 addresses are announced by `advertiser`."""

    sock: NetlinkSocket
    link: Link
    advertiser: _socket.socket | None

    def announce(self, pod: Sequence[PodAddress]) -> None:
        """Have others on the bridge, who may remember an earlier holder of the addresses, hear of this one.

        Where the end is gone there is nobody to announce. Raises OSError.
        """
        from flanneld_py.kernel.announcement import advertise, encode_gratuitous_arp

        ifindex, mac = self.link.ifindex, self.link.mac
        for entry in pod:
            if entry.subnet.family == IPV4:
                self.sock.execute_batch(encode_gratuitous_arp(ifindex, entry.address))
            elif self.advertiser is not None and self._is_running():
                advertise(self.advertiser, ifindex, entry.address, mac)

    def _is_running(self) -> bool:
        """Say whether the kernel has seen that the other end is up; until then IPv6 has no route for multicasts here.

        It looks when it is asked (since Linux 6.8), or within a moment. False if the end is gone. Raises KernelError.
        """
        import time

        for seconds in _RUNNING_WAITS:
            found = links.read_link_at(self.sock, self.link.ifindex)
            if found is None or found.flags & links.IFF_RUNNING:
                return found is not None
            time.sleep(seconds)
        return False

    def close(self) -> None:
        """Close the sockets, and so let go of the namespace."""
        self.sock.close()
        if self.advertiser is not None:
            self.advertiser.close()


def create_pair(sock: NetlinkSocket, conf: BridgeConf, namespace: int, label: Label) -> str:
    """Make the pair, the far end in the container's namespace; return the name of the near one, which bears the label.

    That one is up, and no port of a bridge yet.

    Raises KernelError, CniError if the container has such a device already.
    """
    ifname = label.ifname
    far = veth.VethEnd(ifname, conf.mac or random_mac())
    for _ in range(_NAME_TRIES):
        near = veth.VethEnd(f"veth{os.urandom(4).hex()}", random_mac())
        create = veth.encode_create(near, far, mtu=conf.mtu, far_namespace=namespace)
        # Nobody would ever use it, and the kernel goes through those of all ports when a device goes.
        without_address = links.encode_no_address_of_its_own(near.name)
        failed = sock.execute_batch((create, links.encode_alias(near.name, write_label(label)), without_address))
        if 0 not in failed:
            if 1 in failed:
                delete_end(sock, near.name)
                raise KernelError(failed[1][0], f"label {near.name}", failed[1][1])
            return near.name
        error = KernelError(failed[0][0], f"create {ifname} in the container", failed[0][1])
        if not errnos.is_present(error):
            raise error
        if links.read_link(sock, near.name) is None:
            raise CniError(errors.INTERNAL, f"the container has a device {ifname} already")
    raise CniError(errors.INTERNAL, "no free name for a veth device was found")


def connect(sock: NetlinkSocket, conf: BridgeConf, bridge: Link, port: str) -> None:
    """Make the near end a port of the bridge. Raises KernelError."""
    failed = sock.execute_batch(bridges.encode_port(port, bridge.ifindex, hairpin=conf.hairpin, isolated=conf.isolated))
    if failed:
        errno, reason = failed[min(failed)]
        raise KernelError(errno, f"make {port} a port of the bridge {bridge.name}", reason)


def learn(sock: NetlinkSocket, bridge: Link, end: PodEnd, pod: Sequence[PodAddress]) -> None:
    """Have the host send to this holder of the addresses, should it remember an earlier one."""
    from flanneld_py.kernel.announcement import encode_learn

    mac = end.link.mac
    sock.execute_batch([encode_learn(bridge.ifindex, entry.subnet.family, entry.address, mac) for entry in pod])


def delete_end(sock: NetlinkSocket, name: str) -> None:
    """Delete a pair by the end that is where the socket is; having none is no error. Raises KernelError."""
    found = links.read_link(sock, name)
    if found is not None:
        links.delete_link(sock, found.ifindex)


def open_end(namespace: int, ifname: str, *, has_ipv6: bool, detects_duplicates: bool) -> PodEnd:
    """Return the container's end, still down, with its settings. Raises KernelError, OSError."""
    with InNamespace(namespace):
        _set_sysctls(ifname, has_ipv6=has_ipv6, detects_duplicates=detects_duplicates)
        advertiser = _open_advertiser() if has_ipv6 else None
        sock = NetlinkSocket()
    found = links.read_link(sock, ifname)
    if found is None:
        raise KernelError(19, f"configure {ifname}", "it vanished from the container")
    return PodEnd(sock, found, advertiser)


def _open_advertiser() -> _socket.socket | None:
    from flanneld_py.kernel.announcement import open_advertiser

    try:
        return open_advertiser()
    except PermissionError:  # who lacks CAP_NET_RAW; to be announced is a help, no need
        return None


def configure(
    end: PodEnd, pod: Sequence[PodAddress], pod_routes: Sequence[PodRoute], *, detects_duplicates: bool = False
) -> None:
    """Give the container's end its addresses and routes, and bring it up. Raises KernelError.

    With `detects_duplicates` the kernel asks around for each IPv6 address before it uses it, and this waits for it.
    """
    sock, device = end.sock, end.link
    requests = [
        addresses.encode_add(
            addresses.InterfaceAddress(device.ifindex, entry.subnet.family, entry.address, entry.subnet.length),
            detects_duplicates=detects_duplicates,
        )
        for entry in pod
    ]
    requests.append(links.encode_set(device.ifindex, flags=links.IFF_UP))
    requests.append(links.encode_arp_notify(device.ifindex))
    if detects_duplicates:
        _execute(sock, requests, [], device.name)
        _wait_until_unique(sock, device)
        requests = []
    _execute(sock, requests, _list_routes(device.ifindex, pod, pod_routes), device.name)


def _wait_until_unique(sock: NetlinkSocket, device: Link) -> None:
    import time

    for _ in range(_DETECTION_LOOKS):
        found = addresses.read_addresses(sock, device.ifindex)
        if any(entry.flags & addresses.IFA_F_DADFAILED for entry in found):
            raise KernelError(17, f"configure {device.name}", "another host has its address")
        if not any(entry.flags & addresses.IFA_F_TENTATIVE for entry in found):
            return
        time.sleep(_DETECTION_PAUSE)
    raise KernelError(110, f"configure {device.name}", "its addresses were not taken into use")


def _list_routes(ifindex: int, pod: Sequence[PodAddress], pod_routes: Sequence[PodRoute]) -> list[routes.DeviceRoute]:
    wanted = []
    for route in pod_routes:
        gateway = route.gateway if route.gateway is not None else _gateway_for(route.dst.family, pod)
        scope = routes.default_scope(route.dst.family, gateway) if route.scope is None else route.scope
        table = routes.TABLE_MAIN if route.table is None else route.table
        wanted.append(routes.DeviceRoute(route.dst, ifindex, gateway, route.metric, table, scope, route.mtu, route.mss))
    return wanted


def _gateway_for(family: int, pod: Sequence[PodAddress]) -> int:
    return next((entry.gateway for entry in pod if entry.subnet.family == family and entry.gateway), 0)


def _set_sysctls(ifname: str, *, has_ipv6: bool, detects_duplicates: bool) -> None:
    refuse_router_advertisements(ifname)
    if has_ipv6:
        for device in ("lo", ifname):
            sysctl.ensure_sysctl("0", "net", "ipv6", "conf", device, "disable_ipv6")
        sysctl.ensure_sysctl("1", "net", "ipv6", "conf", ifname, "ndisc_notify")
    try:
        # Addresses are usable at once: the store makes sure that no other container has them.
        sysctl.ensure_sysctl("1" if detects_duplicates else "0", "net", "ipv6", "conf", ifname, "accept_dad")
    except KernelError as error:
        if has_ipv6 or not errnos.is_absent(error):
            raise


def wait_until_forwarding(sock: NetlinkSocket, port: str) -> Link:
    """Return the port when the bridge forwards to it. Raises CniError if it does not within seconds."""
    import time

    for seconds in _PORT_WAITS:
        found = bridges.read_port(sock, port)
        if found is not None and found.is_forwarding:
            return found.link
        time.sleep(seconds)
    raise CniError(errors.INTERNAL, f"the bridge does not forward to its port {port}", "is the bridge up?")


def delete_device(namespace: int, ifname: str) -> None:
    """Delete the container's device, and the other end with it; having none is no error. Raises KernelError."""
    with open_socket_inside(namespace) as sock:
        delete_end(sock, ifname)


def disconnect_device(sock: NetlinkSocket, namespace: int, ifname: str) -> Link | None:
    """Take the container's device off the bridge and down, and return its end on the host.

    None if it has no such device, or if the other end is no port of a bridge on the host. Raises KernelError.
    """
    with open_socket_inside(namespace) as inside:
        far = links.read_link(inside, ifname)
    near = None if far is None or far.kind != veth.KIND else links.read_link_at(sock, far.parent)
    if far is None or near is None or (near.kind, near.parent) != (veth.KIND, far.ifindex) or not near.master:
        return None
    attributes = netlink.encode_u32(links.IFLA_MASTER, 0)
    links.set_link(sock, near.ifindex, attributes, up=False)
    return near


def _execute(
    sock: NetlinkSocket, requests: Sequence[Request], pod_routes: Sequence[routes.DeviceRoute], ifname: str
) -> None:
    """Carry out the requests, and then add the routes; one that is there already is no error."""
    operations = [f"configure {ifname}"] * len(requests) + [f"add the route {route.dst}" for route in pod_routes]
    failed = sock.execute_batch([*requests, *map(routes.encode_add, pod_routes)])
    for index, (errno, reason) in failed.items():
        error = KernelError(errno, operations[index], reason)
        if index < len(requests) or not errnos.is_present(error):
            raise error
