"""What a tunnel may carry: the underlay's MTU less what encapsulation adds, as long as enough is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld_py.core.errors import ConfigError
from flanneld_py.core.network_config import integer
from flanneld_py.core.prefix import IPV4, IPV6

if TYPE_CHECKING:
    from collections.abc import Collection

    from flanneld_py.core.network_config import NetworkConfig

_LEAST = {IPV4: 68, IPV6: 1280}
"""Bytes that a device needs for a family (RFC 791, section 3.2; RFC 8200, section 5); the kernel insists on them."""


def tunnel_mtu(underlay: int, overhead: int, families: Collection[int]) -> int:
    """Return what packets in the tunnel may have, in bytes as all of this. Raises ConfigError if it is too little."""
    least = overhead + max(_LEAST[family] for family in families)
    if underlay < least:
        raise ConfigError("MTU", f"the underlay's {underlay} is too little for this network; expected {least} or more")
    return underlay - overhead


def read_underlay_mtu(config: NetworkConfig, overhead: int) -> int | None:
    """Read the Backend's key MTU; None, as for 0, stands for the uplink's. Raises ConfigError."""
    given = integer(config.backend, "MTU", default=0, high=65535)
    if given:
        tunnel_mtu(given, overhead, [part.network.family for part in config.ranges])
    return given or None
