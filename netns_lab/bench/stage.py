"""Where a case plays: nodes on one underlay, a router, an etcd with the cluster's configuration; and its resetting.

Everything lies in the holder's own /run, which is memory: no disk is in a figure, and nothing is left with the stage.
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Network
from pathlib import Path
from socket import AF_INET

from pyroute2.nftables.main import NFTables

from netns_lab.bench.daemon import Daemon
from netns_lab.bench.etcd_client import EtcdClient
from netns_lab.bench.leases import NODE_KEYS, network_config
from netns_lab.bench.subject import Subject
from netns_lab.etcd import CONFIG_KEY, endpoints, member_program, start_etcd
from netns_lab.folder import LabFolder
from netns_lab.namespaces import in_network
from netns_lab.node import SUBNET_FILE, make_node, read_subnets, subnet_file
from netns_lab.places import node_place
from netns_lab.topology import ETCD, ETCD_NET, ETCD_SUBNET, EtcdMember, Node, Subnet, Topology, Underlay, hosts_of
from netns_lab.underlay import build_router, open_netlink
from netns_lab.waiting import wait_until

FOLDER = Path("/run/bench")
LAN = Underlay("lan", (IPv4Network("172.30.0.0/16"),))
ETCD_UNDERLAY = Underlay(ETCD_NET, (ETCD_SUBNET,))
MTU = 1500
DEVICES = "flannel"
ROUTE_PROTOCOLS = (3, 119)  # RTPROT_BOOT, which Go flannel's carry, and flanneld-py's own
MAIN_TABLE = 254
NFTABLES_FAMILIES = (1, 2, 5, 10)  # NFPROTO_INET, _IPV4, _NETDEV, _IPV6
READY_SECONDS = 60.0
Say = Callable[[str], None]


def make_topology(nodes: int) -> Topology:
    """Return a lab of so many nodes, without pods, on one underlay subnet, with one etcd."""
    hosts = hosts_of(LAN)
    members = (EtcdMember(ETCD, next(hosts_of(ETCD_UNDERLAY))[0]),)
    made = tuple(Node(f"node{number}", LAN, next(hosts), (), None) for number in range(1, nodes + 1))
    return Topology(MTU, (LAN,), made, ETCD_UNDERLAY, members, {})


def drop_nftables(network: Path) -> None:
    """Delete all tables in that namespace: a guard that one daemon left would keep out the next one's packets."""
    with suppress(OSError), in_network(network):  # a kernel without nftables has no tables
        for family in NFTABLES_FAMILIES:
            with NFTables(nfgen_family=family) as nftables:
                for table in list(nftables.get_tables()):
                    nftables.table("del", name=table.get_attr("NFTA_TABLE_NAME"))


class Stage:
    """A built stage. `say` reports progress to whoever watches."""

    def __init__(self, nodes: int, length: int, say: Say) -> None:
        self.say = say
        self.length = length
        self.topology = make_topology(nodes)
        self._folder = LabFolder(FOLDER)
        self._folder.root.mkdir()
        self._daemons: list[Daemon] = []
        build_router(self.topology)
        for node in self.topology.nodes:
            make_node(self._folder, self.topology, node)
        start_etcd(self._folder, self.topology)
        self.etcd = EtcdClient(self.topology.etcd[0])
        self.etcd.put(CONFIG_KEY, network_config(length))

    @property
    def node(self) -> Node:
        """The first node, on which most cases look."""
        return self.topology.nodes[0]

    @property
    def etcd_pid(self) -> int | None:
        """The etcd's pid while it runs."""
        return member_program(self._folder, self.topology.etcd[0]).pid()

    def subnet_file(self, node: Node) -> Path:
        """Return the node's subnet.env, as the stage sees it."""
        return subnet_file(self._folder, node)

    def subnet(self, node: Node) -> Subnet:
        """Return the node's subnet, once its daemon has written it. Raises LabError."""
        found: list[Subnet] = []

        def known() -> bool:
            for daemon in self._daemons:
                daemon.require()
            found.extend(read_subnets(self._folder, node)[:1])
            return bool(found)

        wait_until(f"the daemon on {node.name} to write its subnet file", known, READY_SECONDS)
        return found[0]

    def start(self, node: Node, subject: Subject, *flags: str) -> Daemon:
        """Start a daemon on a node, with the flags that every flanneld takes."""
        command = (
            *subject.command,
            f"--etcd-endpoints={endpoints(self.topology)}",
            f"--subnet-file={Path('/run', SUBNET_FILE)}",
            *flags,
        )
        daemon = Daemon(command, node_place(node.name), self._folder.node(node.name) / "log")
        self._daemons.append(daemon)
        return daemon

    def reset(self) -> None:
        """End all daemons, and take away all that they made: devices, routes, rules, leases, subnet files."""
        for daemon in self._daemons:
            daemon.stop()
        self._daemons.clear()
        for node in self.topology.nodes:
            with open_netlink(node_place(node.name).network) as netlink:
                for link in netlink.get_links():
                    if link.get_attr("IFLA_IFNAME").startswith(DEVICES):
                        netlink.link("del", index=link["index"])
                # Routes over the uplink, by which a daemon without a tunnel leads to the others, stay until then.
                for route in list(netlink.get_routes(family=AF_INET, table=MAIN_TABLE)):
                    if route["proto"] in ROUTE_PROTOCOLS and route["dst_len"] == self.length:
                        netlink.route("del", dst=f"{route.get_attr('RTA_DST')}/{route['dst_len']}")
            drop_nftables(node_place(node.name).network)
            shutil.rmtree(self.subnet_file(node).parent, ignore_errors=True)
        self.etcd.delete_prefix(NODE_KEYS)
