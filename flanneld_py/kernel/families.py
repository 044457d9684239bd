"""Address families as the kernel numbers them, and addresses as it writes them."""

from __future__ import annotations

from flanneld_py.core.prefix import IPV4, IPV6

AF_UNSPEC = 0
AF_INET = 2
AF_BRIDGE = 7
AF_INET6 = 10

AF_OF = {IPV4: AF_INET, IPV6: AF_INET6}
FAMILY_OF = {AF_INET: IPV4, AF_INET6: IPV6}

SYSCTL_NAMES = {IPV4: "ipv4", IPV6: "ipv6"}
"""The folders of /proc/sys/net."""

_SIZES = {IPV4: 4, IPV6: 16}


def encode_address(family: int, value: int) -> bytes:
    """Write an address in network byte order, 4 or 16 bytes."""
    return value.to_bytes(_SIZES[family], "big")
