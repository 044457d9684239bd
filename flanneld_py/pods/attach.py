"""ADD: a container gets its device, addresses and routes; or, if a step fails, nothing stays behind.

Everything is checked before the first change. The order of the changes is such that a kill between two of them leaves
what a DEL finds: first the scratch file, then the addresses, then the device.
"""

from __future__ import annotations

from flanneld_py.core.named_tuple import TYPE_CHECKING, NamedTuple
from flanneld_py.core.prefix import IPV6, Prefix, format_address
from flanneld_py.pods import errors, guard, pod_link, scratch
from flanneld_py.pods.bridge import ensure_bridge, ensure_gateways, random_mac, refuse_router_advertisements
from flanneld_py.pods.bridge_conf import parse_bridge_conf
from flanneld_py.pods.errors import CniError
from flanneld_py.pods.host_local import AddressStore
from flanneld_py.pods.label import Label
from flanneld_py.pods.masquerade import drop_masquerade, ensure_masquerade
from flanneld_py.pods.result import Interface, PodRoute, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flanneld_py.kernel.link import Link
    from flanneld_py.kernel.netlink_socket import NetlinkSocket
    from flanneld_py.pods.bridge_conf import BridgeConf
    from flanneld_py.pods.fields import Fields
    from flanneld_py.pods.invocation import Invocation
    from flanneld_py.pods.network_conf import NetworkConf
    from flanneld_py.pods.pod_link import PodEnd
    from flanneld_py.pods.result import Dns, PodAddress

    Announce = Callable[[PodEnd, Sequence[PodAddress]], None]
    """Takes the container's end, has others hear of its addresses, and closes it."""


class _Job(NamedTuple):
    """What the steps of one ADD share; `undo` takes back what they made, the latest first."""

    call: Invocation
    network: NetworkConf
    delegate: Fields
    conf: BridgeConf
    namespace: int
    sock: NetlinkSocket
    announce: Announce
    undo: list[Callable[[], None]]


def announce_at_once(end: PodEnd, pod: Sequence[PodAddress]) -> None:
    """Be an `Announce` that is done when it returns. Raises OSError."""
    end.announce(pod)
    end.close()


def attach(
    call: Invocation,
    network: NetworkConf,
    delegate: Fields,
    namespace: int,
    sock: NetlinkSocket,
    *,
    announce: Announce = announce_at_once,
) -> Result:
    """Wire a container to the bridge. `namespace` is its descriptor, `sock` speaks to the host's.

    Raises CniError, KernelError, OSError; then whatever was made is gone again.
    """
    conf = parse_bridge_conf(delegate, call.args)
    conf = conf._replace(mac=conf.mac or random_mac())
    dns = _read_dns(conf)
    bridge, is_new = ensure_bridge(sock, conf)
    if conf.is_gateway:
        ensure_gateways(sock, bridge, conf.ipam.subnets, force=conf.force_address)
    if is_new:
        from flanneld_py.pods.rejoin import rejoin

        rejoin(sock, conf, bridge)
    job = _Job(call, network, delegate, conf, namespace, sock, announce, [])
    try:
        return _wire(job, bridge, _reserve(job, bridge), dns)
    except BaseException as error:
        problems = _undo_all(job)
        if problems:
            raise CniError(errors.INTERNAL, str(error), f"and clearing up failed: {'; '.join(problems)}") from error
        raise


def _read_dns(conf: BridgeConf) -> Dns:
    if any(conf.dns) or not conf.ipam.resolv_conf:
        return conf.dns
    from flanneld_py.pods.resolv_conf import read_resolv_conf

    return read_resolv_conf(conf.ipam.resolv_conf)


def _reserve(job: _Job, bridge: Link) -> tuple[PodAddress, ...]:
    store = AddressStore(job.conf.ipam.store)
    try:
        with store:
            has_booted = store.notice_boot()
            if not has_booted:
                return _try_reserve(job, store)
    except CniError as error:
        if error.code != errors.PLUGIN_NOT_AVAILABLE or not _reclaim(job, bridge):
            raise
    else:
        _reclaim(job, bridge)
    with store:
        return _try_reserve(job, store)


def _reclaim(job: _Job, bridge: Link) -> bool:
    from flanneld_py.pods.reclaim import reclaim

    return reclaim(job.sock, job.network, job.conf.ipam, bridge)


def _try_reserve(job: _Job, addresses: AddressStore) -> tuple[PodAddress, ...]:
    call, ipam = job.call, job.conf.ipam
    # The scratch file came before any address: without it the container holds none.
    has_been_here = scratch.has_scratch(job.network.data_dir, call.container_id)
    held = addresses.find(call.container_id, call.ifname) if has_been_here else ()
    if held:
        texts = ", ".join(format_address(family, address) for family, address in held)
        raise CniError(
            errors.INVALID_ENVIRONMENT,
            f"{call.ifname} of container {call.container_id} has been added already, and holds {texts}",
            "a DEL must come before another ADD",
        )
    job.undo.append(scratch.write_scratch(job.network.data_dir, call.container_id, job.delegate))
    pod = addresses.reserve(ipam.subnets, ipam.requested, call.container_id, call.ifname)
    job.undo.append(lambda: _give_back(job, pod))
    return pod


def _give_back(job: _Job, pod: tuple[PodAddress, ...]) -> None:
    with AddressStore(job.conf.ipam.store) as addresses:
        addresses.give_back((entry.subnet.family, entry.address) for entry in pod)


def _wire(job: _Job, bridge: Link, pod: tuple[PodAddress, ...], dns: Dns) -> Result:
    """Make the device and connect it; the container's first words, as it comes up, are for nobody.

    The kernel says some for IPv6 whenever a device comes up (MLD, RFC 3810), and a bridge hands each to all its ports.
    """
    call, conf = job.call, job.conf
    port = pod_link.create_pair(
        job.sock, conf, job.namespace, Label(conf.ipam.store.network, call.container_id, call.ifname)
    )
    job.undo.append(lambda: pod_link.delete_end(job.sock, port))
    refuse_router_advertisements(port)
    guard.ensure_guard(conf, port, pod)
    routes = conf.ipam.routes + (_default_routes(conf.ipam.routes, pod) if conf.is_default_gateway else ())
    has_ipv6 = any(address.subnet.family == IPV6 for address in pod)
    end = pod_link.open_end(job.namespace, call.ifname, has_ipv6=has_ipv6, detects_duplicates=conf.detects_duplicates)
    job.undo.append(end.close)
    if conf.detects_duplicates:  # the others are asked as the device comes up
        pod_link.connect(job.sock, conf, bridge, port)
    pod_link.configure(end, pod, routes, detects_duplicates=conf.detects_duplicates)
    if conf.ip_masq:
        held = [(address.subnet.family, address.address) for address in pod]
        job.undo.append(lambda: drop_masquerade(conf.ipam.store.network, call.container_id, held))
        ensure_masquerade(conf.ipam.store.network, call.container_id, pod)
    pod_link.connect(job.sock, conf, bridge, port)
    near = pod_link.wait_until_forwarding(job.sock, port)
    pod_link.learn(job.sock, bridge, end, pod)
    job.announce(end, pod)
    interfaces = (_describe(bridge), _describe(near), _describe(end.link, call.netns))
    place = len(interfaces) - 1
    return Result(interfaces, tuple(address._replace(interface=place) for address in pod), routes, dns)


def _describe(link: Link, sandbox: str = "") -> Interface:
    return Interface(link.name, link.mac.hex(":"), link.mtu, sandbox)


def _default_routes(routes: tuple[PodRoute, ...], pod: tuple[PodAddress, ...]) -> tuple[PodRoute, ...]:
    # A default route of the user's own stands, if it says through which gateway.
    given = {route.dst for route in routes if route.gateway is not None}
    wanted = {Prefix(address.subnet.family, 0, 0): address.gateway for address in reversed(pod)}
    return tuple(PodRoute(dst, gateway) for dst, gateway in reversed(wanted.items()) if dst not in given)


def _undo_all(job: _Job) -> list[str]:
    problems = []
    while job.undo:
        try:
            job.undo.pop()()
        except (CniError, OSError) as error:
            problems.append(str(error))
    return problems
