"""What a lab consists of: complete immutable types, and the parser of the small TOML file that describes it.

Pure. Addresses follow from the file: on each underlay subnet the router has the first address and the nodes,
in the file's order, those from FIRST_HOST on; etcd has a subnet of its own behind the same router. The underlay has
the address families that the cluster's network has, and no other.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_interface
from itertools import chain, count, islice, product
from string import ascii_lowercase
from typing import TypeVar

from netns_lab.errors import TopologyError, UsageError

ROUTER = "router"
ETCD = "etcd"
ETCD_SIZES = (1, 3)
FIRST_HOST = 11
MTU_RANGE = range(576, 65536)
NAME = re.compile(r"[a-z][a-z0-9-]{0,14}")  # names become device names, which end at 15 characters (IFNAMSIZ)

IPV4 = 4
IPV6 = 6
IPV6_UNDERLAY_PREFIX = 0xFD20 << 112
"""fd20:0:0:N::/64 is the IPv6 subnet of the Nth underlay (RFC 4193, unique local)."""

Subnet = IPv4Network | IPv6Network
Interface = IPv4Interface | IPv6Interface

T = TypeVar("T")
KIND_NAMES = {int: "an integer", bool: "true or false", str: "a string", dict: "a table", list: "a list of words"}


@dataclass(frozen=True, slots=True)
class Underlay:
    """A layer 2 that uplinks are attached to, with its subnet in each family."""

    name: str
    subnets: tuple[Subnet, ...]

    @property
    def gateways(self) -> tuple[Interface, ...]:
        """The router's addresses in it."""
        return self.host(1)

    def host(self, number: int) -> tuple[Interface, ...]:
        """Return the addresses of that number, with their subnets' lengths."""
        return tuple(ip_interface((subnet[number], subnet.prefixlen)) for subnet in self.subnets)


ETCD_NET = "etcd-net"
ETCD_SUBNET = IPv4Network("192.0.2.0/24")  # TEST-NET-1 (RFC 5737): nobody else's
RESERVED_NAMES = frozenset({ROUTER, ETCD, ETCD_NET})


@dataclass(frozen=True, slots=True)
class Node:
    """A node: its uplink's place in the underlay, its pods, and the daemon it runs if not our flanneld."""

    name: str
    underlay: Underlay
    addresses: tuple[Interface, ...]
    pods: tuple[str, ...]
    daemon: tuple[str, ...] | None

    @property
    def address(self) -> Interface:
        """Its first address, which its name stands for."""
        return self.addresses[0]


@dataclass(frozen=True, slots=True)
class EtcdMember:
    """One member of etcd, called so if it is alone; a `secure` one wants a certificate and a user of its clients."""

    name: str
    address: Interface
    number: int = 1
    secure: bool = False

    @property
    def client_url(self) -> str:
        """Where it serves clients."""
        return f"{'https' if self.secure else 'http'}://{self._host}:2379"

    @property
    def gateway(self) -> tuple[str, int]:
        """Where the lab itself speaks to it, beside it: a secure one has a plain door there."""
        return ("127.0.0.1", 2379 + 10 * self.number) if self.secure else (str(self.address.ip), 2379)

    @property
    def peer_url(self) -> str:
        """Where it serves the other members."""
        return f"http://{self._host}:2380"

    @property
    def _host(self) -> str:
        return f"[{self.address.ip}]" if self.address.version == IPV6 else str(self.address.ip)


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole lab. `network` is the cluster's configuration for the daemons, handed on as it stands.

    `kubernetes` has them find it, and each other, by a Kubernetes API server in place of etcd. `on_demand` has our own
    daemons program peers as they are needed.
    """

    mtu: int
    underlays: tuple[Underlay, ...]
    nodes: tuple[Node, ...]
    etcd_underlay: Underlay
    etcd: tuple[EtcdMember, ...]
    network: Mapping[str, object]
    kubernetes: bool = False
    on_demand: bool = False

    def find_node(self, name: str) -> Node:
        """Find a node. Raises UsageError."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise UsageError(f"no node is named {name}; there are {', '.join(node.name for node in self.nodes)}")


class Table:
    """One table of the file, emptied key by key, so that every complaint names the key and no key is overlooked."""

    def __init__(self, values: Mapping[str, object], path: str = "") -> None:
        self.left = dict(values)
        self.path = path
        self.known: list[str] = []

    def wrong(self, key: str, problem: str) -> TopologyError:
        """Return the complaint about a key."""
        return TopologyError(f"{self.path}{key}: {problem}")

    def take(self, key: str, kind: type[T], default: T | None = None) -> T:
        """Return the value of a key, of exactly that kind. Raises TopologyError."""
        self.known.append(key)
        value = self.left.pop(key, default)
        if value is None:
            raise self.wrong(key, f"is missing; it is {KIND_NAMES[kind]}")
        if type(value) is not kind:  # not isinstance: a bool is no number here
            raise self.wrong(key, f"must be {KIND_NAMES[kind]}, not {value!r}")
        return value

    def table(self, key: str) -> "Table":
        """Return the table under a key."""
        return Table(self.take(key, dict), f"{self.path}{key}.")

    def finish(self) -> None:
        """Raise TopologyError if a key is left that nobody asked for."""
        for key in self.left:
            raise self.wrong(key, f"unknown key; there are {', '.join(self.known)}")


def default_topology() -> str:
    """Return the text of the topology that the package carries."""
    return resources.files("netns_lab").joinpath("default.toml").read_text()


def load_topology(text: str) -> dict[str, object]:
    """Read a topology file into plain values. Raises TopologyError."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TopologyError(f"not TOML: {error}") from error


def parse_topology(values: Mapping[str, object]) -> Topology:
    """Read a topology from the values of its file. Raises TopologyError, one line that begins with the key."""
    top = Table(values)
    mtu = top.take("mtu", int, 1500)
    if mtu not in MTU_RANGE:
        raise top.wrong("mtu", f"must be {MTU_RANGE.start} to {MTU_RANGE.stop - 1}, not {mtu}")
    pods = _parse_pod_count(top, 1)
    network = top.take("network", dict)
    families = families_of(network)
    etcd_underlay = make_underlay(ETCD_NET, ETCD_SUBNET, 0, families)
    etcd = _parse_etcd(top, etcd_underlay)
    underlays = _parse_underlays(top.table("underlay"), families)
    nodes = _parse_nodes(top.table("nodes"), underlays, pods)
    kubernetes = top.take("kubernetes", bool, default=False)
    on_demand = top.take("on_demand", bool, default=False)
    top.finish()
    return Topology(mtu, underlays, nodes, etcd_underlay, etcd, network, kubernetes, on_demand)


def families_of(network: Mapping[str, object]) -> tuple[int, ...]:
    """Return the address families of a cluster's configuration; the daemons complain if it has none."""
    folded = {key.lower(): value for key, value in network.items()}
    ipv6 = folded.get("enableipv6") is True
    ipv4 = folded.get("enableipv4") is not False or not ipv6
    return (IPV4,) * ipv4 + (IPV6,) * ipv6


def make_underlay(name: str, subnet: IPv4Network, number: int, families: tuple[int, ...]) -> Underlay:
    """Return an underlay of these families; `number` tells its IPv6 subnet from the others'."""
    subnets: dict[int, Subnet] = {IPV4: subnet, IPV6: IPv6Network((IPV6_UNDERLAY_PREFIX | number << 64, 64))}
    return Underlay(name, tuple(subnets[family] for family in families))


def _parse_pod_count(table: Table, default: int) -> int:
    pods = table.take("pods", int, default)
    if pods < 0:
        raise table.wrong("pods", f"must be 0 or more, not {pods}")
    return pods


def _parse_etcd(top: Table, underlay: Underlay) -> tuple[EtcdMember, ...]:
    members, secure = 1, False
    if "etcd" in top.left:
        table = top.table("etcd")
        members = table.take("members", int, 1)
        secure = table.take("secure", bool, False)
        table.finish()
        if members not in ETCD_SIZES:
            raise table.wrong("members", f"must be {' or '.join(map(str, ETCD_SIZES))}, not {members}")
    names = [ETCD] if members == 1 else [f"{ETCD}{number}" for number in range(1, members + 1)]
    hosts = hosts_of(underlay)
    return tuple(EtcdMember(name, next(hosts)[0], number, secure) for number, name in enumerate(names, 1))


def _parse_underlays(table: Table, families: tuple[int, ...]) -> tuple[Underlay, ...]:
    subnets = {ETCD_NET: ETCD_SUBNET}
    for name in list(table.left):
        _check_name(table, name)
        text = table.take(name, str)
        try:
            subnet = IPv4Network(text)
        except ValueError as error:
            raise table.wrong(name, f"must be an IPv4 subnet such as 172.20.1.0/24: {error}") from error
        for other, taken in subnets.items():
            if subnet.overlaps(taken):
                raise table.wrong(name, f"{subnet} overlaps {other}, {taken}")
        subnets[name] = subnet
    del subnets[ETCD_NET]
    return tuple(
        make_underlay(name, subnet, number, families) for number, (name, subnet) in enumerate(subnets.items(), 1)
    )


def _parse_nodes(table: Table, underlays: tuple[Underlay, ...], pods: int) -> tuple[Node, ...]:
    if not table.left:
        raise TopologyError("nodes: a lab needs at least one node")
    by_name = {underlay.name: underlay for underlay in underlays}
    hosts = {underlay.name: hosts_of(underlay) for underlay in underlays}
    names = pod_names()
    nodes: list[Node] = []
    for name in list(table.left):
        _check_name(table, name)
        entry = table.table(name)
        where = entry.take("underlay", str)
        if where not in by_name:
            raise entry.wrong("underlay", f"no underlay is named {where!r}; there are {', '.join(by_name)}")
        addresses = next(hosts[where], None)
        if addresses is None:
            raise entry.wrong("underlay", f"{where} ({by_name[where].subnets[0]}) is too small for so many nodes")
        node_pods = tuple(islice(names, _parse_pod_count(entry, pods)))
        nodes.append(Node(name, by_name[where], addresses, node_pods, _parse_daemon(entry)))
        entry.finish()
    for taken in (*by_name, *chain.from_iterable(node.pods for node in nodes)):
        if taken in table.known:
            raise table.wrong(taken, "is the name of an underlay or a pod of this lab already")
    return tuple(nodes)


def hosts_of(underlay: Underlay) -> Iterator[tuple[Interface, ...]]:
    """Return the addresses for nodes, without the subnet's broadcast address."""
    size = min(subnet.num_addresses for subnet in underlay.subnets)
    return (underlay.host(number) for number in range(FIRST_HOST, size - 1))


def _parse_daemon(entry: Table) -> tuple[str, ...] | None:
    if "daemon" not in entry.left:
        return None
    words = entry.take("daemon", list)
    if not words or not all(isinstance(word, str) for word in words):
        raise entry.wrong("daemon", "must be a list of words, the command first")
    return tuple(words)


def _check_name(table: Table, name: str) -> None:
    if not NAME.fullmatch(name):
        raise table.wrong(name, "a name is 1 to 15 of a-z, 0-9 and -, a letter first")
    if name in RESERVED_NAMES:
        raise table.wrong(name, "is a name that the lab uses itself")


def pod_names() -> Iterator[str]:
    """Yield pod-a … pod-z, pod-aa … without end."""
    for length in count(1):
        for letters in product(ascii_lowercase, repeat=length):
            yield "pod-" + "".join(letters)
