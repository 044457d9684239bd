"""A node in on-demand mode on the real kernel, the store in memory, and the far side of its uplink."""

import asyncio
import errno
import random
import socket
import struct

from flanneld_py.agent.lease_keeper import LeaseKeeper
from flanneld_py.agent.on_demand import OnDemand
from flanneld_py.core.lease import encode_attrs, encode_key
from flanneld_py.core.prefix import IPV4, format_address
from flanneld_py.store.subnet_manager import HeldLease
from tests.agent.reconciled_node import ReconciledNode
from tests.host import ADDRESS, ADDRESS6, UPLINK, Host, parse_prefix
from tests.waiting import until

NETWORKS = {parse_prefix("10.5.0.0/16"): 24}
FAR_ADDRESS = "172.30.0.1"
PEERS = "172.30.1.0/24"
"""The PublicIPs of the peers: all of them the far side's."""
VXLAN_PORT = 8472
UNREACHABLE = 7
PERMANENT, NOARP = 0x80, 0x40
RESOLVED = 0x02 | 0x04 | 0x08 | 0x10 | NOARP | PERMANENT
_IP_PKTINFO = 8
_IP_RECVERR = 11


class FarSide:
    """Everything at the other end of the uplink: what comes through the tunnel is read off the wire there."""

    def __init__(self, namespace):
        self.namespace = namespace
        self._socket = None
        self.packets = []
        """(outer destination, inner destination MAC, inner destination, payload) of each UDP packet that came."""

    def listen(self):
        def open_socket():
            opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            opened.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            opened.setblocking(False)
            opened.bind(("", VXLAN_PORT))
            return opened

        self._socket = self.namespace.run(open_socket)
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def _read(self):
        data, ancillary, _, _ = self._socket.recvmsg(2048, 64)
        frame = data[8:]
        if frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_UDP:
            return
        [(_, _, info)] = ancillary
        self.packets.append(
            (socket.inet_ntoa(info[8:12]), frame[:6].hex(":"), socket.inet_ntoa(frame[30:34]), frame[42:])
        )

    def close(self):
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()

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

    @staticmethod
    def _make_far_side():
        from pyroute2 import IPRoute

        with IPRoute() as ipr:
            lo, far = (ipr.link_lookup(ifname=name)[0] for name in ("lo", "far0"))
            for index in (lo, far):
                ipr.link("set", index=index, state="up")
            ipr.addr("add", index=far, address=FAR_ADDRESS, prefixlen=16)
            ipr.route("add", dst=PEERS, oif=lo, type="local", table=255, scope=254)


class OnDemandNode(ReconciledNode):
    """`store` is the cluster's MemoryStore, `finder` what the node finds single leases by."""

    def __init__(self, host, store, *, idle=1e6, refused_for=1e6, finder=None, **keys):
        self.store = store
        self.rng = random.Random(0)  # noqa: S311 - repeatable
        self.finder = finder or store.finder()
        self.on_demand = OnDemand(host.sock, self.finder, NETWORKS, self.rng, idle=idle, refused_for=refused_for)
        super().__init__(host, on_demand=self.on_demand, **keys)
        store.put(self.own_key, encode_attrs(self.lease.attrs))

    async def start(self):
        await super().start()
        held = HeldLease(self.own_key, self.lease, 86_400.0)
        keeper = LeaseKeeper(self.store.manager(self.rng), None, held, 3600.0, self.rng)
        self._answering = asyncio.create_task(self.on_demand.run(self.reconciler, self.ground, keeper))

    async def ready(self):
        """Start and wait until packets are asked about."""
        await self.start()
        await self.settled()
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

    def unresolved(self):
        """The neighbours on the tunnel that the kernel has no MAC for."""
        device = self.device()
        found = self.host.do(lambda ipr: list(ipr.get_neighbours(family=2, ifindex=device)))
        return [entry.get_attr("NDA_DST") for entry in found if not entry["state"] & RESOLVED]

    def unreachable(self):
        """The subnets with an `unreachable` route."""
        found = self.host.do(lambda ipr: list(ipr.get_routes(family=2, table=254)))
        return {f"{route.get_attr('RTA_DST')}/{route['dst_len']}" for route in found if route["type"] == UNREACHABLE}

    def wanted(self, *leases, family=IPV4, direct=False):
        fdb, neighbours, routes = super().wanted(*leases, family=family, direct=direct)
        return fdb, neighbours, routes | {"10.5.0.0/16": (None, self.device(), False)}

    def state(self, family=IPV4):
        fdb, neighbours, routes = super().state(family)
        return fdb, neighbours, {dst: value for dst, value in routes.items() if dst != PEERS}


class Sender:
    """Sends numbered UDP packets from the host, and notes what it is told in return."""

    def __init__(self, host):
        self._host = host
        self._sockets = {}

    def _open(self, address):
        def connect():
            opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            opened.setblocking(False)
            # Else the kernel tells of TCP's errors only.
            opened.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
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
