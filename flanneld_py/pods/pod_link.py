"""The container's device: a veth pair between the bridge and its namespace, with addresses and routes."""

from __future__ import annotations

import os

from flanneld_py.core.errors import KernelError
from flanneld_py.core.named_tuple import TYPE_CHECKING
from flanneld_py.core.prefix import IPV6
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
    from collections.abc import Sequence

    from flanneld_py.kernel.link import Link
    from flanneld_py.kernel.netlink import Request
    from flanneld_py.pods.bridge_conf import BridgeConf
    from flanneld_py.pods.label import Label
    from flanneld_py.pods.result import PodAddress, PodRoute

_NAME_TRIES = 10
_PORT_WAITS = (0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 1.0, 0.0)
"""Seconds after each look at whether the port forwards; at the first look it nearly always does."""
_DETECTION_LOOKS = 200
_DETECTION_PAUSE = 0.05


def create_pair(sock: NetlinkSocket, conf: BridgeConf, bridge: Link, namespace: int, label: Label) -> str:
    """Make the pair, the far end in the container's namespace; return the name of the near one, which bears the label.

    Raises KernelError, CniError if the container has such a device already.
    """
    ifname = label.ifname
    far = veth.VethEnd(ifname, conf.mac or random_mac())
    for _ in range(_NAME_TRIES):
        near = veth.VethEnd(f"veth{os.urandom(4).hex()}", random_mac())
        create = veth.encode_create(near, far, mtu=conf.mtu, master=bridge.ifindex, far_namespace=namespace)
        options = bridges.encode_port_options(
            near.name, hairpin=conf.hairpin, isolated=conf.isolated, alias=write_label(label)
        )
        failed = sock.execute_batch((create, options))
        if 0 not in failed:
            if 1 in failed:
                delete_end(sock, near.name)
                raise KernelError(failed[1][0], f"set the bridge port options of {near.name}", failed[1][1])
            return near.name
        error = KernelError(failed[0][0], f"create {ifname} in the container", failed[0][1])
        if not errnos.is_present(error):
            raise error
        if links.read_link(sock, near.name) is None:
            raise CniError(errors.INTERNAL, f"the container has a device {ifname} already")
    raise CniError(errors.INTERNAL, "no free name for a veth device was found")


def delete_end(sock: NetlinkSocket, name: str) -> None:
    """Delete a pair by the end that is where the socket is; having none is no error. Raises KernelError."""
    found = links.read_link(sock, name)
    if found is not None:
        links.delete_link(sock, found.ifindex)


def configure(
    namespace: int,
    ifname: str,
    pod: Sequence[PodAddress],
    pod_routes: Sequence[PodRoute],
    *,
    detects_duplicates: bool = False,
) -> Link:
    """Give the container's end its addresses and routes, bring it up, and return it. Raises KernelError.

    With `detects_duplicates` the kernel asks around for each IPv6 address before it uses it, and this waits for it.
    """
    with InNamespace(namespace):
        has_ipv6 = any(address.subnet.family == IPV6 for address in pod)
        _set_sysctls(ifname, has_ipv6=has_ipv6, detects_duplicates=detects_duplicates)
        sock = NetlinkSocket()
    with sock:
        found = links.read_link(sock, ifname)
        if found is None:
            raise KernelError(19, f"configure {ifname}", "it vanished from the container")
        # Neighbours that remember an earlier holder of the address hear at once of the new one.
        requests = [links.encode_arp_notify(found.ifindex)]
        requests += [
            addresses.encode_add(
                addresses.InterfaceAddress(found.ifindex, entry.subnet.family, entry.address, entry.subnet.length),
                detects_duplicates=detects_duplicates,
            )
            for entry in pod
        ]
        requests.append(links.encode_set(found.ifindex, flags=links.IFF_UP))
        if detects_duplicates:
            _execute(sock, requests, [], ifname)
            _wait_until_unique(sock, found)
            requests = []
        _execute(sock, requests, _list_routes(found.ifindex, pod, pod_routes), ifname)
        return found


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
