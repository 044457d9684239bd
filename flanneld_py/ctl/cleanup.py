"""`flannelctl cleanup`: takes everything from a node that flanneld, its plugin and `flannelctl cni install` made there.

What to take is found by one function, and each thing is taken by itself: what fails is told, and the rest goes on.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.core.entries import PROTOCOL_FLANNELD, describe_entry
from flanneld_py.core.prefix import IPV4, IPV6
from flanneld_py.ctl.cni import CONFLIST, EXECUTABLE
from flanneld_py.ctl.cni_files import written_conflists
from flanneld_py.ctl.daemon import add_daemon_flags
from flanneld_py.ctl.errors import CtlError
from flanneld_py.ctl.node_view import read_node_view
from flanneld_py.ctl.output import FAILED, OK, show, show_json
from flanneld_py.ctl.own_interpreter import FOLDER as INTERPRETERS
from flanneld_py.kernel import guard_members, miss_limit, nexthop, route
from flanneld_py.kernel.iptables import find_iptables
from flanneld_py.kernel.link import delete_link
from flanneld_py.kernel.netlink_socket import NetlinkSocket
from flanneld_py.kernel.nf_tables_socket import drop_table, read_tables
from flanneld_py.kernel.nft_rules import TABLES
from flanneld_py.kernel.own_devices import is_own_device
from flanneld_py.kernel.port_guard import TABLE as POD_GUARDS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from flanneld_py.ctl.node_view import NodeView
    from flanneld_py.ctl.subparsers import Subparsers

_BRIDGE = "cni0"
_TABLE_PREFIXES = (*TABLES.values(), guard_members.TABLE_PREFIX, miss_limit.TABLE_PREFIX)


class Step(NamedTuple):
    """Something that is there, and how it is taken away."""

    what: str
    take: Callable[[], object]


def register(subcommands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `cleanup` to the command line."""
    parser = subcommands.add_parser(
        "cleanup",
        help="take all that flannel made from this node",
        description="Removes devices, routes, rules and files that flanneld and the CNI plugin made. Refuses while "
        "the daemon runs or pods are there. The lease stays in etcd: flannelctl lease release ends it.",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would go, and take nothing")
    parser.add_argument("--bin-dir", type=Path, default=Path("/opt/cni/bin"), help="of CNI plugins (%(default)s)")
    parser.add_argument("--conf-dir", type=Path, default=Path("/etc/cni/net.d"), help="of configurations (%(default)s)")
    parser.add_argument("--state-dir", type=Path, default=Path("/var/lib/cni"), help="of the plugins (%(default)s)")
    add_daemon_flags(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    sock = NetlinkSocket()
    try:
        view = read_node_view(sock)
        refuse_while_in_use(options.subnet_file, view)
        steps = [*_kernel_steps(sock, view), *_file_steps(options)]
        stays = {} if options.dry_run else _take_all(steps)
    finally:
        sock.close()
    done = "would go" if options.dry_run else "gone"
    if options.json:
        show_json({step.what: stays.get(step.what, done) for step in steps})
    else:
        show([f"{step.what}: {stays.get(step.what, done)}" for step in steps])
    return FAILED if stays else OK


def _take_all(steps: Sequence[Step]) -> dict[str, str]:
    """Take everything away; return why some of it stays."""
    stays: dict[str, str] = {}
    for step in steps:
        try:
            step.take()
        except OSError as error:
            stays[step.what] = f"stays: {error}"
    return stays


def refuse_while_in_use(subnet_file: Path, view: NodeView) -> None:
    """Raise CtlError while a daemon holds the subnet file or pods are on the bridge."""
    lock = subnet_file.with_name(f".{subnet_file.name}.lock")
    with suppress(FileNotFoundError), lock.open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CtlError(f"flanneld (pid {file.read(20).strip()}) runs with {subnet_file}: stop it first") from error
    others = find_daemons()
    if others:
        raise CtlError(f"flanneld (pid {', '.join(map(str, others))}) runs in this network: stop it first")
    bridge = view.link(_BRIDGE)
    ports = [link.name for link in view.links if bridge is not None and link.master == bridge.ifindex]
    if ports:
        raise CtlError(f"{len(ports)} pods are on {_BRIDGE} ({', '.join(ports[:3])} …): drain the node first")


def find_daemons() -> list[int]:
    """Return the processes called flanneld, ours or Go flannel's, in our network namespace."""
    own = Path("/proc/self/ns/net").stat()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        # A process may end at any time, and those of other users are closed to us.
        with suppress(OSError):
            if (folder / "comm").read_text().strip() == "flanneld" and (folder / "ns/net").stat().st_ino == own.st_ino:
                found.append(int(folder.name))
    return sorted(found)


def _kernel_steps(sock: NetlinkSocket, view: NodeView) -> Iterator[Step]:
    # A device takes its routes with it; what is left are direct routes, nexthops and subnets that nobody leases.
    for link in view.links:
        if is_own_device(link) or (link.name == _BRIDGE and link.kind == "bridge"):
            yield Step(f"device {link.name}", partial(delete_link, sock, link.ifindex))
    tunnels = {link.ifindex for link in view.devices}
    for entry in view.routes:
        if entry.protocol == PROTOCOL_FLANNELD and entry.ifindex not in tunnels:
            yield Step(describe_entry(entry), partial(_delete, sock, route.encode_delete(entry)))
    for hop in view.nexthops:
        yield Step(describe_entry(hop), partial(_delete, sock, nexthop.encode_delete(hop)))
    yield from _rule_steps()


def _rule_steps() -> Iterator[Step]:
    with suppress(OSError):
        for family, name in read_tables():
            if name == POD_GUARDS or name.startswith(_TABLE_PREFIXES):
                yield Step(f"nftables table {name}", partial(drop_table, family, name))
    for family in (IPV4, IPV6):
        iptables = find_iptables((family,))
        if iptables is not None and iptables.holds_any():
            yield Step(f"iptables rules for IPv{family}", iptables.clear)


def _delete(sock: NetlinkSocket, request: object) -> None:
    # The device that went first may have taken it along.
    sock.execute_batch([request])  # type: ignore[list-item]


def _file_steps(options: argparse.Namespace) -> Iterator[Step]:
    env: Path = options.subnet_file
    files = [
        env,
        *(env.with_suffix(suffix) for suffix in (".sock", ".cni.sock", ".cni.door", ".cni.door.owner")),
        env.with_name(f".{env.name}.lock"),
    ]
    conflist, executable = options.conf_dir / CONFLIST, options.bin_dir / EXECUTABLE
    if _read(conflist) in written_conflists():
        files.append(conflist)
    if b"from cni_plugin.main import main" in _read(executable):
        files.append(executable)
    for path in files:
        if path.exists() or path.is_symlink():
            yield Step(str(path), path.unlink)
    for folder in (
        options.bin_dir / INTERPRETERS,
        options.state_dir / "flannel",
        options.state_dir / "networks" / "cbr0",
    ):
        if folder.is_dir():
            yield Step(str(folder), partial(shutil.rmtree, folder))
    # In a container its folder is the node's, mounted, and stays.
    is_ours = env.parent.is_dir() and not env.parent.is_mount()
    if is_ours and not {entry.name for entry in os.scandir(env.parent)} - {path.name for path in files}:
        yield Step(str(env.parent), env.parent.rmdir)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
