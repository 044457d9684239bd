"""The namespaces of a lab's nodes, pods, router and etcd: made, pinned under /run, found again by name.

A node has its own mount namespace, in which /run is the folder `run` of the node: all that runs there finds the
default paths of a real node. A pod shares its node's, and its network namespace is in the node's /run/netns too.
"""

import os
from contextlib import suppress
from pathlib import Path

from netns_lab.keeper import keep
from netns_lab.namespaces import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    Kind,
    Place,
    make_namespaces,
    mount,
    pin,
    run_in,
    set_hostname,
    unpin,
)

RUN = Path("/run")
NETNS = RUN / "netns"  # where `ip netns` looks, too
MOUNTNS = RUN / "mountns"
UTSNS = RUN / "utsns"


def plain_place(name: str) -> Place:
    """Return the place of the router or of etcd."""
    return Place(NETNS / name)


def node_place(name: str) -> Place:
    """Return the place of a node."""
    return Place(NETNS / name, MOUNTNS / name, UTSNS / name)


def pod_place(pod: str, node: str) -> Place:
    """Return the place of a pod."""
    return Place(NETNS / pod, MOUNTNS / node, UTSNS / node)


def make_plain_place(name: str) -> None:
    """Make and pin a network namespace."""
    _keep_all(make_namespaces(Kind.NETWORK, lambda: None), plain_place(name))


def make_node_place(name: str, run: Path) -> None:
    """Make and pin the namespaces of a node whose /run is to be the folder `run`."""
    (run / "netns").mkdir(parents=True)

    def prepare() -> None:
        set_hostname(name)
        mount(run, RUN, flags=MS_BIND)
        with suppress(PermissionError):  # as in holder.py: a container may forbid a whole /sys
            mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)

    _keep_all(make_namespaces(Kind.MOUNT | Kind.UTS | Kind.NETWORK, prepare), node_place(name))


def _keep_all(fds: dict[Kind, int], place: Place) -> None:
    if place.mount is not None:
        keep(fds[Kind.MOUNT], place.mount)
    if place.uts is not None:
        pin(fds[Kind.UTS], place.uts)
    pin(fds[Kind.NETWORK], place.network)
    for fd in fds.values():
        os.close(fd)


def make_pod_place(pod: str, node: str) -> None:
    """Make a pod's network namespace, pinned for the lab and in its node's /run/netns."""
    fd = make_namespaces(Kind.NETWORK, lambda: None)[Kind.NETWORK]
    pin(fd, NETNS / pod)
    run_in(node_place(node), lambda: pin(fd, NETNS / pod))
    os.close(fd)


def remove_pod_place(pod: str, node: str) -> None:
    """Undo make_pod_place, as far as it was done."""
    run_in(node_place(node), lambda: unpin(NETNS / pod))
    unpin(NETNS / pod)
