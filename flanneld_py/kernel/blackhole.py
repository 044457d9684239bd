"""Blackhole routes for subnets of our own: what no pod's bridge takes is dropped, and never sent back to the network.

Such a route has the largest metric there is, so that every other route to the subnet goes before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld_py.core.entries import BLACKHOLE, Route
from flanneld_py.core.errors import KernelError
from flanneld_py.kernel import errnos, netlink, route
from flanneld_py.kernel.netlink import Request

if TYPE_CHECKING:
    from flanneld_py.core.prefix import Prefix
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

_LAST_METRIC = 0xFFFFFFFF


def ensure_blackhole(sock: NetlinkSocket, subnet: Prefix) -> bool:
    """Have a blackhole route; return whether there was none. Raises KernelError."""
    kind, flags, payload = route.encode_replace(_route(subnet))
    exclusive = flags & ~netlink.NLM_F_REPLACE | netlink.NLM_F_EXCL
    try:
        sock.execute(Request(kind, exclusive, payload), f"write blackhole route {subnet}")
    except KernelError as error:
        if errnos.is_present(error):
            return False
        raise
    return True


def drop_blackhole(sock: NetlinkSocket, subnet: Prefix) -> bool:
    """Have no blackhole route of ours; return whether there was one. Raises KernelError."""
    try:
        sock.execute(route.encode_delete(_route(subnet)), f"delete blackhole route {subnet}")
    except KernelError as error:
        if errnos.is_absent(error):
            return False
        raise
    return True


def _route(subnet: Prefix) -> Route:
    return Route(subnet, _LAST_METRIC, 0, 0, 0, onlink=False, type=BLACKHOLE)
