"""What a lab consists of: complete immutable types, and the parser of the small TOML file that describes it.

Pure. Addresses follow from the file: on each underlay subnet the router has the first address and the nodes,
in the file's order, those from FIRST_HOST on; etcd has a subnet of its own behind the same router.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from ipaddress import IPv4Interface, IPv4Network
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

T = TypeVar("T")
KIND_NAMES = {int: "an integer", str: "a string", dict: "a table", list: "a list of words"}


@dataclass(frozen=True, slots=True)
class Underlay:
    """One subnet that uplinks lie in."""

    name: str
    subnet: IPv4Network

    @property
    def gateway(self) -> IPv4Interface:
        """The router's address in it."""
        return self.host(1)

    def host(self, number: int) -> IPv4Interface:
        """Return the address of that number, with the subnet's length."""
        return IPv4Interface((self.subnet[number], self.subnet.prefixlen))


ETCD_UNDERLAY = Underlay("etcd-net", IPv4Network("192.0.2.0/24"))  # TEST-NET-1 (RFC 5737): nobody else's
RESERVED_NAMES = frozenset({ROUTER, ETCD, ETCD_UNDERLAY.name})


@dataclass(frozen=True, slots=True)
class Node:
    """A node: its uplink's place in the underlay, its pods, and the daemon it runs if not our flanneld."""

    name: str
    underlay: Underlay
    address: IPv4Interface
    pods: tuple[str, ...]
    daemon: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class EtcdMember:
    """One member of the etcd cluster."""

    name: str
    address: IPv4Interface

    @property
    def client_url(self) -> str:
        """Where it serves clients."""
        return f"http://{self.address.ip}:2379"

    @property
    def peer_url(self) -> str:
        """Where it serves the other members."""
        return f"http://{self.address.ip}:2380"


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole lab. `network` is the cluster's configuration for the daemons, handed on as it stands."""

    mtu: int
    underlays: tuple[Underlay, ...]
    nodes: tuple[Node, ...]
    etcd: tuple[EtcdMember, ...]
    network: Mapping[str, object]

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


def parse_topology(text: str) -> Topology:
    """Read a topology. Raises TopologyError, one line that begins with the key."""
    try:
        top = Table(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise TopologyError(f"not TOML: {error}") from error
    mtu = top.take("mtu", int, 1500)
    if mtu not in MTU_RANGE:
        raise top.wrong("mtu", f"must be {MTU_RANGE.start} to {MTU_RANGE.stop - 1}, not {mtu}")
    pods = _parse_pod_count(top, 1)
    etcd = _parse_etcd(top)
    underlays = _parse_underlays(top.table("underlay"))
    nodes = _parse_nodes(top.table("nodes"), underlays, pods)
    network = top.take("network", dict)
    top.finish()
    return Topology(mtu, underlays, nodes, etcd, network)


def _parse_pod_count(table: Table, default: int) -> int:
    pods = table.take("pods", int, default)
    if pods < 0:
        raise table.wrong("pods", f"must be 0 or more, not {pods}")
    return pods


def _parse_etcd(top: Table) -> tuple[EtcdMember, ...]:
    members = 1
    if "etcd" in top.left:
        table = top.table("etcd")
        members = table.take("members", int, 1)
        table.finish()
        if members not in ETCD_SIZES:
            raise table.wrong("members", f"must be {' or '.join(map(str, ETCD_SIZES))}, not {members}")
    hosts = hosts_of(ETCD_UNDERLAY)
    return tuple(EtcdMember(f"etcd{number}", next(hosts)) for number in range(1, members + 1))


def _parse_underlays(table: Table) -> tuple[Underlay, ...]:
    underlays: list[Underlay] = []
    for name in list(table.left):
        _check_name(table, name)
        text = table.take(name, str)
        try:
            subnet = IPv4Network(text)
        except ValueError as error:
            raise table.wrong(name, f"must be an IPv4 subnet such as 172.20.1.0/24: {error}") from error
        for other in (*underlays, ETCD_UNDERLAY):
            if subnet.overlaps(other.subnet):
                raise table.wrong(name, f"{subnet} overlaps {other.name}, {other.subnet}")
        underlays.append(Underlay(name, subnet))
    return tuple(underlays)


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
        address = next(hosts[where], None)
        if address is None:
            raise entry.wrong("underlay", f"{where} ({by_name[where].subnet}) is too small for so many nodes")
        node_pods = tuple(islice(names, _parse_pod_count(entry, pods)))
        nodes.append(Node(name, by_name[where], address, node_pods, _parse_daemon(entry)))
        entry.finish()
    for taken in (*by_name, *chain.from_iterable(node.pods for node in nodes)):
        if taken in table.known:
            raise table.wrong(taken, "is the name of an underlay or a pod of this lab already")
    return tuple(nodes)


def hosts_of(underlay: Underlay) -> Iterator[IPv4Interface]:
    """Return the addresses for nodes, without the subnet's broadcast address."""
    return (underlay.host(number) for number in range(FIRST_HOST, underlay.subnet.num_addresses - 1))


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
