"""A host for tests on the kernel: a namespace with an uplink, our own netlink socket in it, and pyroute2 beside it."""

import json
import shutil
import subprocess

import pytest
from pyroute2 import IPRoute

from flanneld_py.core.prefix import IPV4, IPV6, parse_address, parse_prefix
from flanneld_py.kernel.netlink_socket import NetlinkSocket
from tests.waiting import wait_until

UPLINK = "eth0"
ADDRESS, ADDRESS6 = "172.30.0.11", "fd30::11"
PERMANENT = 0x80
SELF = 0x02
ONLINK = 4


class Host:
    """`sock` is ours; everything else is done and read by others: pyroute2, or iproute2's commands."""

    def __init__(self, namespace):
        self.namespace = namespace
        self._writer = namespace.run(NetlinkSocket)
        self.sock = namespace.run(NetlinkSocket)
        self.do(self._make_uplink)
        self.uplink = self.index(UPLINK)
        # The kernel notices the carrier in its own time, and refuses direct nexthops until then.
        wait_until(lambda: self.link(UPLINK).get_attr("IFLA_OPERSTATE") == "UP" and self._has_ipv6())

    @staticmethod
    def _make_uplink(ipr):
        ipr.link("set", index=ipr.link_lookup(ifname="lo")[0], state="up")
        ipr.link("add", ifname=UPLINK, kind="veth", peer="far0")
        uplink = ipr.link_lookup(ifname=UPLINK)[0]
        for index in (uplink, ipr.link_lookup(ifname="far0")[0]):
            ipr.link("set", index=index, state="up")
        ipr.addr("add", index=uplink, address=ADDRESS, prefixlen=16)
        ipr.addr("add", index=uplink, address=ADDRESS6, prefixlen=64, flags=0x02)

    def _has_ipv6(self):
        # The kernel takes an IPv6 address into use in its own time as well, and a monitor would hear of it.
        in_use = self.local_addresses(IPV6)
        return {text.partition("/")[0] for text in self.addresses(self.uplink) if ":" in text} <= in_use

    def local_addresses(self, family):
        """The addresses that the host takes packets for."""
        local = self.do(lambda ipr: list(ipr.get_routes(family=2 if family == IPV4 else 10, table=255)))
        return {route.get_attr("RTA_DST") for route in local}

    def close(self):
        self.sock.close()
        self._writer.close()

    @property
    def other(self):
        """A second socket of our own codec: to the kernel, and to a monitor, somebody else."""
        return self._writer

    def do(self, work):
        """Call `work` with a pyroute2 socket in the namespace."""

        def inside():
            with IPRoute() as ipr:
                return work(ipr)

        return self.namespace.run(inside)

    def ip(self, words, program="ip"):
        """Run an iproute2 command in the namespace; with -json its output, parsed."""
        if shutil.which(program) is None:
            pytest.skip(f"no {program}: apt-get install iproute2")
        command = [program, *words.split()]
        done = self.namespace.run(lambda: subprocess.run(command, check=False, capture_output=True, text=True))
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return json.loads(done.stdout or "[]") if "-json" in command else done.stdout

    def index(self, name):
        found = self.do(lambda ipr: ipr.link_lookup(ifname=name))
        return found[0] if found else None

    def link(self, name):
        return self.do(lambda ipr: ipr.link("get", ifname=name)[0])

    def addresses(self, ifindex):
        """What is on a device, link-local ones aside, as `address/length`."""
        found = self.do(lambda ipr: list(ipr.get_addr(index=ifindex, scope=0)))
        return {f"{entry.get_attr('IFA_ADDRESS')}/{entry['prefixlen']}" for entry in found}

    def takes_in(self, address):
        """Say whether the kernel has the local route of an IPv6 address.

        That of a new one comes later, by a worker (net/ipv6/addrconf.c, addrconf_dad_work): up to a second on a busy
        machine, in which no ICMP message gets there, also none of the host itself.
        """
        found = self.do(lambda ipr: list(ipr.get_routes(family=10, table=255)))
        return any(route.get_attr("RTA_DST") == address for route in found)

    def routes(self, family=IPV4):
        """The main table as `dst → (proto, gateway, device, onlink)`.

        The kernel tells gateway and device of a route by nexthop object as well, so this is where packets go.
        """
        found = self.do(lambda ipr: list(ipr.get_routes(family=2 if family == IPV4 else 10, table=254)))
        return {
            f"{route.get_attr('RTA_DST') or 'default'}/{route['dst_len']}": (
                route["proto"],
                route.get_attr("RTA_GATEWAY"),
                route.get_attr("RTA_OIF"),
                bool(route["flags"] & ONLINK),
            )
            for route in found
        }

    def neighbours(self, ifindex, family=IPV4):
        """The permanent ones as `address → MAC`."""
        found = self.do(lambda ipr: list(ipr.get_neighbours(family=2 if family == IPV4 else 10, ifindex=ifindex)))
        return {
            entry.get_attr("NDA_DST"): entry.get_attr("NDA_LLADDR") for entry in found if entry["state"] == PERMANENT
        }

    def fdb(self, ifindex):
        """The entries with a remote as `MAC → remote`."""
        found = self.do(lambda ipr: list(ipr.fdb("dump", ifindex=ifindex)))
        return {entry.get_attr("NDA_LLADDR"): entry.get_attr("NDA_DST") for entry in found if entry.get_attr("NDA_DST")}

    def make_vxlan(self, name="flannel.1", mac="02:00:00:00:00:01", vni=1, port=8472, mtu=1450, **options):
        """A vxlan device as Go flannel makes it, by pyroute2; returns its index."""
        if "vxlan_local6" not in options:
            options.setdefault("vxlan_local", ADDRESS)

        def make(ipr):
            ipr.link(
                "add",
                ifname=name,
                kind="vxlan",
                address=mac,
                mtu=mtu,
                vxlan_id=vni,
                vxlan_link=self.uplink,
                vxlan_port=port,
                vxlan_learning=0,
                **options,
            )
            index = ipr.link_lookup(ifname=name)[0]
            ipr.link("set", index=index, state="up")
            return index

        return self.do(make)


def number(text):
    """An address as our entries hold it."""
    return parse_address(text)[1]


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


__all__ = [
    "ADDRESS",
    "ADDRESS6",
    "IPV4",
    "IPV6",
    "PERMANENT",
    "SELF",
    "UPLINK",
    "Host",
    "mac",
    "number",
    "parse_prefix",
]
