"""alloc: this node leases a subnet, and how packets get to it is the operator's business; nothing is in the kernel."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flanneld_py.backends.backend import Backend
from flanneld_py.core.underlay import public_attrs

if TYPE_CHECKING:
    from collections.abc import Callable

    from flanneld_py.core.lease import Lease, LeaseAttrs
    from flanneld_py.core.network_config import NetworkConfig
    from flanneld_py.core.peer import Peer
    from flanneld_py.core.underlay import Uplink
    from flanneld_py.kernel.device import Device
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

KEYS = ()
"""What its configuration has beside Type."""
_NO_TYPE = ""
"""As with Go flannel, a lease says nothing of this backend."""


def parse_alloc(config: NetworkConfig) -> Callable[[Uplink], AllocBackend]:
    """Read the Backend part of the configuration."""
    return partial(AllocBackend, config)


class AllocBackend(Backend):
    """alloc for one network and one uplink."""

    claim_name = "alloc"
    adopts_routes = False

    def __init__(self, config: NetworkConfig, uplink: Uplink) -> None:
        del config
        self._uplink = uplink
        self.mtu = uplink.interface.mtu

    def publish(
        self, sock: NetlinkSocket, earlier: LeaseAttrs | None, random_bytes: Callable[[int], bytes]
    ) -> LeaseAttrs:
        """Return the attributes to publish: addresses only."""
        del sock, earlier, random_bytes
        return public_attrs(self._uplink, _NO_TYPE)

    def devices(self, lease: Lease) -> dict[int, Device]:
        """Return nothing."""
        del lease
        return {}

    def read_peers(self, lease: Lease) -> tuple[Peer, ...]:
        """Return nothing: whoever it is, the operator knows the way."""
        del lease
        return ()
