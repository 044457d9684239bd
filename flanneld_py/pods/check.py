"""CHECK: is a container still wired as its ADD said? It reads the kernel and the store, and changes nothing."""

from __future__ import annotations

from flanneld_py.core.named_tuple import TYPE_CHECKING
from flanneld_py.core.prefix import IPV4, IPV6, format_address
from flanneld_py.kernel import address as addresses
from flanneld_py.kernel import bridge as bridges
from flanneld_py.kernel import device_route as routes
from flanneld_py.kernel import link as links
from flanneld_py.kernel import veth
from flanneld_py.kernel.netns import open_socket_inside
from flanneld_py.pods import errors, guard
from flanneld_py.pods.bridge_conf import parse_bridge_conf
from flanneld_py.pods.errors import CniError
from flanneld_py.pods.host_local import AddressStore
from flanneld_py.pods.result import parse_result

if TYPE_CHECKING:
    from flanneld_py.kernel.link import Link
    from flanneld_py.kernel.netlink_socket import NetlinkSocket
    from flanneld_py.pods.bridge_conf import BridgeConf
    from flanneld_py.pods.fields import Fields
    from flanneld_py.pods.invocation import Invocation
    from flanneld_py.pods.network_conf import NetworkConf
    from flanneld_py.pods.result import Interface, Result


def check(call: Invocation, network: NetworkConf, delegate: Fields, namespace: int, sock: NetlinkSocket) -> None:
    """Compare the ADD's result with what is there. Raises CniError naming the first difference, KernelError."""
    if network.previous is None:
        raise CniError(errors.INVALID_CONFIG, "prevResult is missing from the network configuration")
    conf = parse_bridge_conf(delegate, call.args)
    result = parse_result(network.previous)
    with AddressStore(conf.ipam.store) as store:
        held = store.find(call.container_id, call.ifname)
    _require(bool(held), f"no address is noted down for {call.ifname} of container {call.container_id}")
    bridge = _check_bridge(sock, conf.bridge, result)
    with open_socket_inside(namespace) as inside:
        far = _check_device(inside, call, result)
        _check_addresses(inside, far, result)
        _check_routes(inside, far, result)
    _check_port(sock, bridge, far, conf)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise CniError(errors.INTERNAL, otherwise)


def _find(result: Result, name: str, sandbox: str) -> Interface:
    found = next((entry for entry in result.interfaces if entry.name == name and entry.sandbox == sandbox), None)
    if found is None:
        raise CniError(errors.INVALID_CONFIG, f"prevResult has no interface {name}", f"in the namespace {sandbox!r}")
    return found


def _check_bridge(sock: NetlinkSocket, name: str, result: Result) -> Link:
    said = _find(result, name, "")
    found = links.read_link(sock, name)
    if found is None or found.kind != bridges.KIND:
        raise CniError(errors.INTERNAL, f"the bridge {name} is gone")
    _require(found.is_up, f"the bridge {name} is down")
    _check_mac(found, said)
    return found


def _check_device(inside: NetlinkSocket, call: Invocation, result: Result) -> Link:
    said = _find(result, call.ifname, call.netns)
    found = links.read_link(inside, call.ifname)
    if found is None or found.kind != veth.KIND:
        raise CniError(errors.INTERNAL, f"the container's device {call.ifname} is gone")
    _require(found.is_up, f"the container's device {call.ifname} is down")
    _check_mac(found, said)
    return found


def _check_mac(found: Link, said: Interface) -> None:
    has = found.mac.hex(":")
    _require(said.mac.lower() in {"", has}, f"{found.name} has the MAC {has}, not {said.mac}")


def _check_addresses(inside: NetlinkSocket, far: Link, result: Result) -> None:
    has = {(entry.family, entry.address, entry.length) for entry in addresses.read_addresses(inside, far.ifindex)}
    for entry in result.addresses:
        if entry.interface is not None and result.interfaces[entry.interface].name != far.name:
            continue
        family, length = entry.subnet.family, entry.subnet.length
        text = f"{format_address(family, entry.address)}/{length}"
        _require((family, entry.address, length) in has, f"{far.name} has lost its address {text}")


def _check_routes(inside: NetlinkSocket, far: Link, result: Result) -> None:
    has = [route for family in (IPV4, IPV6) for route in routes.read_routes(inside, family)]
    for route in result.routes:
        table = routes.TABLE_MAIN if route.table is None else route.table
        gateways = {found.gateway for found in has if (found.dst, found.table) == (route.dst, table)}
        stands = bool(gateways) if route.gateway is None else route.gateway in gateways
        _require(stands, f"{far.name} has lost its route to {route.dst}")


def _check_port(sock: NetlinkSocket, bridge: Link, far: Link, conf: BridgeConf) -> None:
    # The kernel says as a veth's parent the index of its other end, which lies in the host's namespace.
    near = links.read_link_at(sock, far.parent)
    port = None if near is None or near.kind != veth.KIND else bridges.read_port(sock, near.name)
    if near is None or port is None or port.link.master != bridge.ifindex:
        raise CniError(errors.INTERNAL, f"the other end of {far.name} is no port of the bridge {bridge.name}")
    _require(near.is_up, f"the bridge port {near.name} is down")
    _require(not guard.is_missing(conf, near.name), f"the bridge port {near.name} has lost its guard")
    _require(port.is_hairpin == conf.hairpin, f"the bridge port {near.name} has not the hairpinMode of the delegate")
    _require(
        port.is_isolated == conf.isolated, f"the bridge port {near.name} has not the portIsolation of the delegate"
    )
