"""The delegate's `antiSpoof` and `macspoofchk`: what a container sends bears its own MAC, and its own addresses.

The first is this project's own key, the second the reference bridge's. Only what a configuration with one of them
asks for is imported.
"""

from __future__ import annotations

from flanneld_py.core.named_tuple import TYPE_CHECKING
from flanneld_py.pods import errors
from flanneld_py.pods.errors import CniError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld_py.kernel.netlink_socket import NetlinkSocket
    from flanneld_py.pods.bridge_conf import BridgeConf
    from flanneld_py.pods.fields import Fields
    from flanneld_py.pods.result import PodAddress

_KEYS = ("antiSpoof", "macspoofchk")


def is_wanted(delegate: Fields) -> bool:
    """Say whether a delegate's configuration asks for a guard."""
    return any(delegate.get(key) is True for key in _KEYS)


def ensure_guard(conf: BridgeConf, port: str, pod: Iterable[PodAddress]) -> None:
    """Guard the container's port as its configuration says, if at all. Raises CniError."""
    if conf.mac is None or not (conf.guards_mac or conf.guards_addresses):
        return
    from flanneld_py.kernel import port_guard

    addresses = [(entry.subnet.family, entry.address) for entry in pod] if conf.guards_addresses else None
    try:
        port_guard.ensure_guard(port, conf.mac, addresses)
    except OSError as error:
        raise CniError(
            errors.INTERNAL,
            f"{error.strerror}",
            "antiSpoof and macspoofchk need nftables: modprobe nf_tables, or set them to false in the delegate",
        ) from error


def is_missing(conf: BridgeConf, port: str) -> bool:
    """Say whether a port lacks the guard that its configuration asks for. Raises KernelError."""
    if not (conf.guards_mac or conf.guards_addresses):
        return False
    from flanneld_py.kernel import port_guard

    return not port_guard.has_guard(port)


def drop_guard(port: str) -> None:
    """Take the guard of a port that is gone away; having none is no error. Raises KernelError."""
    from flanneld_py.kernel import port_guard

    port_guard.drop_guard(port)


def drop_orphans(sock: NetlinkSocket) -> None:
    """Take guards of devices that are gone away. Raises KernelError."""
    from flanneld_py.kernel import link as links
    from flanneld_py.kernel import port_guard

    # In this order: a device that is guarded now and is not there afterwards has gone.
    guarded = port_guard.read_guarded()
    there = {link.name for link in links.read_links(sock)} if guarded else set()
    for device in guarded - there:
        port_guard.drop_guard(device)
