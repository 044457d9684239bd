"""One node on the real kernel: a reconciler with hand-fed lease events, and what others see of its work."""

import asyncio
import json
import random
import socket
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address

from flanneld_py.agent.ground import GroundKeeper
from flanneld_py.agent.reconciler import Reconciler
from flanneld_py.backends.registry import parse_backend
from flanneld_py.backends.vxlan import link_local
from flanneld_py.core.lease import Lease, LeaseAttrs, encode_key
from flanneld_py.core.lease_event import LeasePut, LeaseRemoved, LeaseSnapshot
from flanneld_py.core.lease_table import LeaseTable
from flanneld_py.core.network_config import parse_network_config
from flanneld_py.core.peer import Members
from flanneld_py.core.underlay import AddressOf, Interface, Uplink
from tests.host import ADDRESS, ADDRESS6, IPV4, IPV6, UPLINK, mac, number, parse_prefix
from tests.waiting import until

OWN_MAC = "02:00:00:00:00:01"
V4 = {"Network": "10.5.0.0/16"}
DUAL = V4 | {"EnableIPv6": True, "IPv6Network": "fd42::/48"}
V6 = {"EnableIPv4": False, "EnableIPv6": True, "IPv6Network": "fd42::/48"}
NEVER = 1e6


def make_lease(index, *, mac_index=None, remote=None, subnet=None, families=(IPV4,)):
    """The lease of another node: the `index` says subnet, address and MAC unless they are given."""
    data = f'{{"VNI":1,"VtepMAC":"02:00:00:00:01:{mac_index or index:02x}"}}'
    data6 = f'{{"VNI":1,"VtepMAC":"02:00:00:00:06:{mac_index or index:02x}"}}'
    return Lease(
        parse_prefix(subnet or f"10.5.{index}.0/24") if IPV4 in families else None,
        parse_prefix(f"fd42:0:0:{index:x}::/64") if IPV6 in families else None,
        LeaseAttrs(
            number(remote or f"172.30.1.{index}") if IPV4 in families else None,
            number(f"fd30::1:{index:x}") if IPV6 in families else None,
            "vxlan",
            data if IPV4 in families else None,
            data6 if IPV6 in families else None,
        ),
    )


@asynccontextmanager
async def nodes_by(make_one):
    """Yield what makes a node as `make_one` does; all that were made are stopped in the end."""
    nodes = []

    def make(*args, **keys):
        nodes.append(make_one(*args, **keys))
        return nodes[-1]

    yield make
    for node in nodes:
        await node.stop()


class ReconciledNode:
    def __init__(
        self, host, network=V4, *, has_nexthops=True, resync_interval=NEVER, on_demand=None, extras=(), **keys
    ):
        self.host = host
        config = parse_network_config(json.dumps(network | {"Backend": {"Type": "vxlan"} | keys}))
        ipv4, ipv6 = config.ipv4 is not None, config.ipv6 is not None
        source, source6 = ip_address(ADDRESS), ip_address(ADDRESS6)
        interface = Interface(
            host.uplink, UPLINK, 1500, True, (AddressOf(source, 16, True), AddressOf(source6, 64, True))
        )
        uplink = Uplink(
            interface,
            source if ipv4 else None,
            source6 if ipv6 else None,
            source if ipv4 else None,
            source6 if ipv6 else None,
            "test",
        )
        backend = parse_backend(config)(uplink)
        attrs = backend.publish(host.sock, None, lambda count: mac(OWN_MAC))
        self.lease = Lease(
            parse_prefix("10.5.1.0/24") if ipv4 else None, parse_prefix("fd42:0:0:1::/64") if ipv6 else None, attrs
        )
        self.own_key = encode_key(*self.lease[:2])
        members = Members(
            self.own_key,
            attrs[:2],
            tuple(part.network for part in config.ranges),
            self.lease.subnets,
            interface.prefixes,
        )
        devices = {
            family: replace(device, asks=on_demand is not None)
            for family, device in backend.devices(self.lease).items()
        }
        ground = self.ground = GroundKeeper(
            host.sock, backend, config, devices, uplink=host.uplink, has_nexthops=has_nexthops
        )
        leases = LeaseTable(backend.read_peers, members)

        def make():
            return Reconciler(
                host.sock,
                (backend, *extras),
                ground,
                leases,
                resync_interval=resync_interval,
                rng=random.Random(0),  # noqa: S311
                on_demand=on_demand,
            )

        # The monitor listens in the namespace of the thread that makes it.
        self.reconciler = host.namespace.run(make)
        self._task = None

    async def start(self):
        self._task = asyncio.create_task(self.reconciler.run())

    async def stop(self):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def give_notifications(self, room):
        """Have the kernel keep so many bytes of notifications, or the few that it always does, and drop the rest."""
        self.reconciler.drift._monitor._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)

    async def begin(self, *leases):
        """Start, and tell of these leases and our own by a complete snapshot."""
        await self.start()
        self.tell_all(*leases)
        await self.settled()

    def tell_all(self, *leases):
        told = {encode_key(*lease[:2]): lease for lease in (self.lease, *leases)}
        self.reconciler.take_events([LeaseSnapshot(told, {})])

    def put(self, *leases):
        self.reconciler.take_events([LeasePut(encode_key(*lease[:2]), lease) for lease in leases])

    def remove(self, *leases):
        self.reconciler.take_events([LeaseRemoved(encode_key(*lease[:2])) for lease in leases])

    async def settled(self):
        """Wait until the reconciler has nothing more to do."""
        reconciler = self.reconciler

        def is_quiet():
            assert not self._task.done(), self._task.exception()
            return (
                reconciler.synced.is_set()
                and reconciler.busy_since is None
                and not reconciler._wake.is_set()
                and not reconciler._dirty
                and not reconciler._wanted.has_changed
            )

        await until(is_quiet)

    def device(self, family=IPV4):
        return self.host.index("flannel.1" if family == IPV4 else "flannel-v6.1")

    def state(self, family=IPV4):
        """What others see: (forwarding entries, neighbours, routes that are not the kernel's nor of the underlay)."""
        device = self.device(family)
        routes = self.host.routes(family)
        return (
            self.host.fdb(device) if device else {},
            self.host.neighbours(device, family) if device else {},
            {dst: value[1:] for dst, value in routes.items() if value[0] != 2},
        )

    def wanted(self, *leases, family=IPV4, direct=False):
        """What others should see with these leases."""
        fdb, neighbours, routes = {}, {}, {}
        device = self.device(family)
        for lease in leases:
            subnet = lease.subnet if family == IPV4 else lease.ipv6_subnet
            remote = str(ip_address(lease.attrs.public_ip if family == IPV4 else lease.attrs.public_ipv6))
            data = lease.attrs.backend_data if family == IPV4 else lease.attrs.backend_v6_data
            if direct:
                routes[str(subnet)] = (remote, self.host.uplink, False)
                continue
            vtep_mac = json.loads(data)["VtepMAC"]
            # In IPv6 the gateway is the link-local address of the peer's device.
            gateway = str(
                subnet.base if family == IPV4 else ip_address(link_local(bytes.fromhex(vtep_mac.replace(":", ""))))
            )
            fdb[vtep_mac] = remote
            neighbours[gateway] = vtep_mac
            routes[str(subnet)] = (gateway, device, family == IPV4)
        return fdb, neighbours, routes

    async def follows(self, *leases, **kind):
        """Wait until the kernel is just as these leases say."""

        def is_as_wanted():
            if self._task.done():
                self._task.result()
            return self.device(kind.get("family", IPV4)) and self.state(kind.get("family", IPV4)) == self.wanted(
                *leases, **kind
            )

        try:
            await until(is_as_wanted)
        except AssertionError:
            assert self.state(kind.get("family", IPV4)) == self.wanted(*leases, **kind)
            raise
