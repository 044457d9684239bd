"""What the checks judge: everything that they need of a node, read once. They themselves read nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flanneld_py.backends.vxlan import read_vtep
from flanneld_py.core.errors import KernelError
from flanneld_py.core.lease import encode_key
from flanneld_py.core.lease_event import LeaseRejected
from flanneld_py.core.prefix import IPV4, IPV6, parse_address
from flanneld_py.core.sample_packet import pod_packets, tunnel_packets
from flanneld_py.core.subnet_env import SubnetEnv, parse_subnet_env
from flanneld_py.ctl.certificate import read_expiry
from flanneld_py.ctl.daemon import NoDaemonError, ask
from flanneld_py.ctl.errors import CtlError
from flanneld_py.ctl.node_view import NodeView, find_ways, read_node_view
from flanneld_py.ctl.peers import join
from flanneld_py.ctl.store import add_store_flags, read_store
from flanneld_py.ctl.store_clock import read_store_clock
from flanneld_py.kernel import neighbour
from flanneld_py.kernel.barriers import read_barriers
from flanneld_py.kernel.checksum_offload import has_offload, read_release
from flanneld_py.kernel.netlink_socket import NetlinkSocket
from flanneld_py.kernel.sysctl import read_sysctl
from flanneld_py.kernel.veth import read_near_ends
from flanneld_py.kernel.vxlan import udp_port
from flanneld_py.pods.label import read_label

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from flanneld_py.kernel.barriers import Barrier

_PATIENCE = 10.0
"""Seconds for a program that lists firewall rules."""
_CALL = 0.3
"""Seconds after which the device of a CNI call in progress is on its bridge, or gone."""
_ASKED_ABOUT = 100
"""Peers of whom it is asked whether their packets are let in; firewalls tell them apart by a few prefixes at most."""


@dataclass(frozen=True, slots=True)
class Facts:
    """A node as it was found.

    `daemon` is the status as the daemon tells it, None where none answers; `published` maps our tunnel devices to the
    MACs that our lease tells the others; `peers` are the rows of `flannelctl peers`; `env` is the subnet file, or why
    it cannot be read. `settings` are those below /proc/sys, by their path, None where the kernel has no such setting.
    `filter_rules` is what `iptables -S` prints, `barriers` are the nftables chains that stop what pods
    and peers send; both None where they cannot be asked. `claimed` holds the devices that daemons of this
    project hold. `conflists` maps the names of the network configurations to their texts, `plugins` are the
    executables; both None where the folder is missing. `expiries` maps certificate files to the end of their validity
    in seconds since the epoch, or to why that is unknown. `resolved` counts the neighbours that the kernel resolved,
    by address family.
    `probes` is what the daemon's probes have found, empty where it sends none. `offloaded` are our devices whose
    packets have their checksums left to the device; `release` is the kernel's. `store_time` is the store's clock,
    in seconds since the epoch, None where it does not tell. `unbridged` are the indexes of pods' devices on no bridge.
    """

    now: float
    daemon: Mapping[str, Any] | None
    published: Mapping[str, str]
    peers: Sequence[Mapping[str, Any]]
    subnet_file: Path
    env: SubnetEnv | str
    view: NodeView
    settings: Mapping[str, str | None]
    filter_rules: Sequence[str] | None
    barriers: Sequence[Barrier] | None
    claimed: frozenset[str]
    conflists: Mapping[str, str] | None
    conf_dir: Path
    plugins: frozenset[str] | None
    bin_dir: Path
    has_kubelet: bool
    expiries: Mapping[str, float | str]
    resolved: Mapping[int, int]
    probes: Mapping[str, Any]
    offloaded: frozenset[str]
    release: str
    store_time: float | None
    unbridged: frozenset[int]

    @property
    def backend(self) -> str:
        """The type of the backend, as the daemon says."""
        return str((self.daemon or {}).get("backend", {}).get("type", ""))

    @property
    def ports(self) -> list[int]:
        """The UDP ports that other nodes send packets of the network to."""
        return _find_ports(self.daemon, self.view)

    @property
    def networks(self) -> str:
        """The networks, as text."""
        return ", ".join(map(str, self.env.networks)) if isinstance(self.env, SubnetEnv) else ""

    def setting(self, path: str) -> str | None:
        """Return a setting."""
        return self.settings.get(path)


def add_facts_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say where a node's things lie."""
    parser.add_argument("--bin-dir", type=Path, default=Path("/opt/cni/bin"), help="of CNI plugins (%(default)s)")
    parser.add_argument("--conf-dir", type=Path, default=Path("/etc/cni/net.d"), help="of configurations (%(default)s)")
    add_store_flags(parser)


def read_facts(options: argparse.Namespace) -> Facts:
    """Look at the node that the command line is about. Raises KernelError."""
    subnet_file, bin_dir, conf_dir = options.subnet_file, options.bin_dir, options.conf_dir
    daemon, peers, probes = _ask_daemon(subnet_file)
    env = _read_env(subnet_file)
    sock = NetlinkSocket()
    try:
        view = read_node_view(sock)
        resolved = _count_resolved(sock)
        unbridged = _read_unbridged(sock)
    finally:
        sock.close()
    store: Mapping[str, Any] = (daemon or {}).get("store", {})
    rows = join(peers, find_ways(view))
    return Facts(
        now=time.time(),
        daemon=daemon,
        published=_read_published(options, daemon, env),
        peers=rows,
        subnet_file=subnet_file,
        env=env,
        view=view,
        settings=_read_settings([link.name for link in view.devices]),
        filter_rules=_run_lines("iptables", "-S"),
        barriers=_read_barriers(env, view, daemon, rows),
        claimed=_read_claimed(),
        conflists=_read_conflists(conf_dir),
        conf_dir=conf_dir,
        plugins=frozenset(os.listdir(bin_dir)) if bin_dir.is_dir() else None,  # noqa: PTH208 - names are wanted
        bin_dir=bin_dir,
        has_kubelet=Path("/var/lib/kubelet").is_dir(),
        expiries={file: read_expiry(Path(file)) for key in ("cafile", "certfile") if (file := store.get(key))},
        resolved=resolved,
        probes=probes,
        offloaded=frozenset(link.name for link in view.devices if link.kind == "vxlan" and has_offload(link.name)),
        release=read_release(),
        store_time=read_store_clock(store),
        unbridged=unbridged,
    )


def _ask_daemon(
    subnet_file: Path,
) -> tuple[Mapping[str, Any] | None, Sequence[dict[str, str]] | None, Mapping[str, Any]]:
    """Return status, peers and probes."""
    try:
        probes = ask(subnet_file, "probe")
        return ask(subnet_file, "status"), ask(subnet_file, "peers")["peers"], probes if "peers" in probes else {}
    except NoDaemonError:
        return None, None, {}


def _read_published(
    options: argparse.Namespace, daemon: Mapping[str, Any] | None, env: SubnetEnv | str
) -> dict[str, str]:
    """Return what the daemon says of its devices; where none answers, what our lease in etcd says."""
    if daemon is not None:
        return {device["name"]: device["mac"] for device in daemon.get("devices", ())}
    if isinstance(env, str):
        return {}
    name = encode_key(*(next((one for one in env.subnets if one.family == family), None) for family in (IPV4, IPV6)))
    try:
        found = read_store(options, lambda store: store.read_lease(name))
    except CtlError:
        return {}
    if found is None or isinstance(found.lease, LeaseRejected):
        return {}
    published = {}
    attrs = found.lease.attrs
    for prefix, data in (("flannel", attrs.backend_data), ("flannel-v6", attrs.backend_v6_data)):
        with suppress(ValueError):
            vni, mac = read_vtep(data)
            published[f"{prefix}.{vni}"] = mac.hex(":")
    return published


def _read_env(path: Path) -> SubnetEnv | str:
    try:
        return parse_subnet_env(path.read_text(errors="replace"))
    except OSError as error:
        return str(error.strerror)
    except ValueError as error:
        return str(error)


def _read_settings(devices: Sequence[str]) -> dict[str, str | None]:
    paths = [
        "net/ipv4/ip_forward",
        "net/ipv6/conf/all/forwarding",
        "net/ipv4/conf/all/rp_filter",
        "net/bridge/bridge-nf-call-iptables",
        "net/ipv4/neigh/default/gc_thresh3",
        "net/ipv6/neigh/default/gc_thresh3",
        *(f"net/ipv4/conf/{device}/rp_filter" for device in devices),
        *(f"net/ipv4/conf/{device}/forwarding" for device in devices),
    ]
    found: dict[str, str | None] = {}
    for path in paths:
        try:
            found[path] = read_sysctl(*path.split("/"))
        except KernelError:
            found[path] = None
    return found


def _run_lines(*command: str) -> list[str] | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_PATIENCE)
    except (subprocess.SubprocessError, OSError):
        return None
    return done.stdout.splitlines()


def _read_barriers(
    env: SubnetEnv | str, view: NodeView, daemon: Mapping[str, Any] | None, peers: Sequence[Mapping[str, Any]]
) -> list[Barrier] | None:
    """Return what stops packets of pods, and packets that peers send to our tunnels."""
    if not isinstance(env, SubnetEnv):
        return None
    told: Mapping[str, Any] = (daemon or {}).get("uplink", {})
    uplink = str(told.get("name", ""))
    tunnel = next((link.name for link in view.devices), uplink)
    subnets = {subnet.family: subnet for subnet in env.subnets}
    packets = [
        packet
        for network in env.networks
        if network.family in subnets
        for packet in pod_packets(network, subnets[network.family], tunnel, uplink)
    ]
    sources = [parse_address(source) for source in told.get("sources", ())]
    senders = [parse_address(row["public_ip"]) for row in peers[:_ASKED_ABOUT] if row["public_ip"]]
    for port in _find_ports(daemon, view):
        packets += tunnel_packets(senders, sources, uplink, port)
    try:
        return read_barriers(packets, env.networks, beside_iptables=False)
    except KernelError:
        return None


def _find_ports(daemon: Mapping[str, Any] | None, view: NodeView) -> list[int]:
    told = (daemon or {}).get("backend", {}).get("ports", ())
    return sorted({udp_port(link) for link in view.devices if link.kind == "vxlan"} | set(told))


def _read_claimed() -> frozenset[str]:
    try:
        lines = Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    mark = "@flanneld-py/"
    return frozenset(line.rpartition(mark)[2] for line in lines if mark in line)


def _read_conflists(folder: Path) -> dict[str, str] | None:
    if not folder.is_dir():
        return None
    files = sorted(path for path in folder.iterdir() if path.suffix in {".conf", ".conflist", ".json"})
    return {path.name: path.read_text(errors="replace") for path in files if path.is_file()}


def _read_unbridged(sock: NetlinkSocket) -> frozenset[int]:
    def look() -> frozenset[int]:
        return frozenset(end.ifindex for end in read_near_ends(sock) if not end.master and read_label(end.alias))

    found = look()
    if found:
        time.sleep(_CALL)
    return found & look()


def _count_resolved(sock: NetlinkSocket) -> dict[int, int]:
    def decode(message: Any) -> bool | None:
        _, _, permanent = neighbour.decode_header(message)
        return None if permanent else True

    return {
        family: len(sock.dump(neighbour.encode_dump_neighbours(family, 0), decode, "read neighbours"))
        for family in (IPV4, IPV6)
    }
