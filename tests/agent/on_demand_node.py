"""A node in on-demand mode on the real kernel, the store in memory, and the far side of its uplink."""

import asyncio
import errno
import random
import socket
import struct
from ipaddress import ip_address

from flanneld_py.agent.lease_keeper import LeaseKeeper
from flanneld_py.agent.on_demand import OnDemand
from flanneld_py.core.lease import encode_attrs, encode_key
from flanneld_py.core.prefix import IPV4, IPV6, format_address
from flanneld_py.store.subnet_manager import HeldLease
from tests.agent.reconciled_node import DUAL, V4, V6, ReconciledNode
from tests.host import ADDRESS, ADDRESS6, UPLINK, Host, parse_prefix
from tests.pod_packets import SOCKETS
from tests.waiting import until

NETWORKS = {IPV4: parse_prefix("10.5.0.0/16"), IPV6: parse_prefix("fd42::/48")}
LENGTHS = {IPV4: 24, IPV6: 64}
FAR_ADDRESS = "172.30.0.1"
FAR_ADDRESS6 = "fd30::1"
PEERS, PEERS6 = "172.30.1.0/24", "fd30::1:0/112"
"""The PublicIPs of the peers: all of them the far side's."""
VXLAN_PORT = 8472
UNREACHABLE = 7
PERMANENT, NOARP = 0x80, 0x40
RESOLVED = 0x02 | 0x04 | 0x08 | 0x10 | NOARP | PERMANENT
_IP_PKTINFO = 8
AF = {IPV4: 2, IPV6: 10}
CONFIGS = {(IPV4,): V4, (IPV6,): V6, (IPV4, IPV6): DUAL}


class FarSide:
    """Everything at the other end of the uplink: what comes through the tunnel is read off the wire there."""

    def __init__(self, namespace):
        self.namespace = namespace
        self._sockets = []
        self.packets = []
        """(outer destination, inner destination MAC, inner destination, payload) of each UDP packet that came."""

    def listen(self):
        def open_socket(family, level, option):
            opened = socket.socket(family, socket.SOCK_DGRAM)
            opened.setsockopt(level, option, 1)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            opened.setblocking(False)
            if family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.bind(("", VXLAN_PORT))
            return opened

        for kind in (
            (socket.AF_INET, socket.IPPROTO_IP, _IP_PKTINFO),
            (socket.AF_INET6, socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO),
        ):
            opened = self.namespace.run(open_socket, *kind)
            self._sockets.append(opened)
            asyncio.get_running_loop().add_reader(opened, self._read, opened)

    def _read(self, opened):
        data, ancillary, _, _ = opened.recvmsg(2048, 64)
        [(_, _, info)] = ancillary
        outer = ip_address(info[8:12] if opened.family == socket.AF_INET else info[:16])
        frame = data[8:]
        if frame[12:14] == b"\x08\x00" and frame[23] == socket.IPPROTO_UDP:
            inner, payload = ip_address(frame[30:34]), frame[42:]
        elif frame[12:14] == b"\x86\xdd" and frame[20] == socket.IPPROTO_UDP:
            inner, payload = ip_address(frame[38:54]), frame[62:]
        else:
            return
        self.packets.append((str(outer), frame[:6].hex(":"), str(inner), payload))

    def close(self):
        for opened in self._sockets:
            asyncio.get_running_loop().remove_reader(opened)
            opened.close()

    def payloads(self, address):
        return [payload for _, _, inner, payload in self.packets if inner == address]

    def paths(self, address):
        """(outer destination, inner destination MAC) of the packets to an address, without repetitions."""
        return list(dict.fromkeys((outer, mac) for outer, mac, inner, _ in self.packets if inner == address))


class NodeHost(Host):
    """A host whose uplink ends in another namespace, which answers for all peers."""

    def __init__(self, namespace, far):
        self._far = far
        super().__init__(namespace)

    def _make_uplink(self, ipr):
        ipr.link("set", index=ipr.link_lookup(ifname="lo")[0], state="up")
        ipr.link("add", ifname=UPLINK, kind="veth", peer={"ifname": "far0", "net_ns_fd": self._far.path})
        uplink = ipr.link_lookup(ifname=UPLINK)[0]
        ipr.link("set", index=uplink, state="up")
        ipr.addr("add", index=uplink, address=ADDRESS, prefixlen=16)
        ipr.addr("add", index=uplink, address=ADDRESS6, prefixlen=64, flags=0x02)
        self._far.run(self._make_far_side)
        ipr.route("add", dst=PEERS, gateway=FAR_ADDRESS)
        ipr.route("add", dst=PEERS6, gateway=FAR_ADDRESS6, oif=uplink, family=10)

    @staticmethod
    def _make_far_side():
        from pyroute2 import IPRoute

        with IPRoute() as ipr:
            lo, far = (ipr.link_lookup(ifname=name)[0] for name in ("lo", "far0"))
            for index in (lo, far):
                ipr.link("set", index=index, state="up")
            ipr.addr("add", index=far, address=FAR_ADDRESS, prefixlen=16)
            ipr.route("add", dst=PEERS, oif=lo, type="local", table=255, scope=254)
            ipr.addr("add", index=far, address=FAR_ADDRESS6, prefixlen=64, flags=0x02)
            ipr.route("add", dst=PEERS6, oif=lo, type="local", table=255, family=10)


class OnDemandNode(ReconciledNode):
    """`store` is the cluster's MemoryStore, `finder` what the node finds single leases by."""

    def __init__(self, host, store, *, families=(IPV4,), idle=1e6, refused_for=1e6, finder=None, **keys):
        self.store = store
        self.rng = random.Random(0)  # noqa: S311 - repeatable
        self.finder = finder or store.finder()
        networks = {NETWORKS[family]: LENGTHS[family] for family in families}
        self.on_demand = OnDemand(host.sock, self.finder, networks, self.rng, idle=idle, refused_for=refused_for)
        super().__init__(host, CONFIGS[families], on_demand=self.on_demand, **keys)
        store.put(self.own_key, encode_attrs(self.lease.attrs))

    async def start(self):
        await super().start()
        held = HeldLease(self.own_key, self.lease, 86_400.0)
        keeper = LeaseKeeper(self.store.manager(self.rng), None, held, 3600.0, self.rng)
        self._answering = asyncio.create_task(self.on_demand.run(self.reconciler, self.ground, keeper))

    async def ready(self):
        """Start and wait until packets are asked about, and whoever sends them can be told that they are refused."""
        await self.start()
        await self.settled()
        if self.lease.ipv6_subnet is not None:
            await until(lambda: self.host.takes_in(str(self.lease.ipv6_subnet.base)))
        return self

    def is_running(self):
        for task in (self._task, self._answering):
            assert not task.done(), task
        return True

    async def stop(self):
        if self._task is not None:
            self._answering.cancel()
            await asyncio.gather(self._answering, return_exceptions=True)
            await super().stop()
            self._task = None

    def lease_out(self, *leases):
        for lease in leases:
            self.store.put(encode_key(*lease[:2]), encode_attrs(lease.attrs))

    def end(self, *leases):
        for lease in leases:
            self.store.delete(encode_key(*lease[:2]))

    def pending(self):
        """How many subnets are being looked up."""
        return sum(part.table.pending for part in self.on_demand._parts.values())

    def unresolved(self, family=IPV4):
        """The neighbours on the tunnel that the kernel has no MAC for."""
        device = self.device(family)
        found = self.host.do(lambda ipr: list(ipr.get_neighbours(family=AF[family], ifindex=device)))
        return [entry.get_attr("NDA_DST") for entry in found if not entry["state"] & RESOLVED]

    def unreachable(self, family=IPV4):
        """The subnets with an `unreachable` route."""
        found = self.host.do(lambda ipr: list(ipr.get_routes(family=AF[family], table=254)))
        return {f"{route.get_attr('RTA_DST')}/{route['dst_len']}" for route in found if route["type"] == UNREACHABLE}

    def wanted(self, *leases, family=IPV4, direct=False):
        fdb, neighbours, routes = super().wanted(*leases, family=family, direct=direct)
        return fdb, neighbours, routes | {str(NETWORKS[family]): (None, self.device(family), False)}

    def state(self, family=IPV4):
        fdb, neighbours, routes = super().state(family)
        return fdb, neighbours, {dst: value for dst, value in routes.items() if dst not in {PEERS, PEERS6}}


class Sender:
    """Sends numbered UDP packets from the host, and notes what it is told in return."""

    def __init__(self, host):
        self._host = host
        self._sockets = {}

    def _open(self, address):
        family, level, option = SOCKETS[ip_address(address).version]

        def connect():
            opened = socket.socket(family, socket.SOCK_DGRAM)
            opened.setblocking(False)
            # Else the kernel tells of TCP's errors only.
            opened.setsockopt(level, option, 1)
            return opened

        if address not in self._sockets:
            self._sockets[address] = self._host.namespace.run(connect)
            self._sockets[address].connect((address, 9))
        return self._sockets[address]

    def send(self, address, payload=b"x"):
        """Send one packet; return the errno if the kernel refuses it, or has refused an earlier one."""
        try:
            self._open(address).send(payload)
        except OSError as error:
            self._sockets.pop(address).close()
            return error.errno
        return 0

    async def is_refused(self, address):
        """Send a packet and return whether the answer is that the host is unreachable."""
        if self.send(address) == errno.EHOSTUNREACH:
            return True
        told = 0

        def has_been_told():
            nonlocal told
            told = self._sockets[address].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            return told

        await until(has_been_told)
        return told == errno.EHOSTUNREACH

    def close(self):
        for opened in self._sockets.values():
            opened.close()


def public_ip(lease):
    return format_address(IPV4, lease.attrs.public_ip)


def number_of(payload):
    return struct.unpack("!I", payload)[0]


async def arrives(far, sender, address):
    """Send a packet of its own and wait for it; return the path that it took."""
    payload = f"{address} {len(far.packets)}".encode()
    assert sender.send(address, payload) == 0
    await until(lambda: payload in far.payloads(address))
    return next(
        (outer, mac) for outer, mac, inner, data in reversed(far.packets) if (inner, data) == (address, payload)
    )
