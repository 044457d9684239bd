"""The devices that flannel daemons make, ours and Go flannel's: known by name and kind, whichever backend made them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flanneld_py.kernel.link import Link

_OWN = (
    (re.compile(r"flannel(-v6)?\.[0-9]+"), {"vxlan"}),
    (re.compile(r"flannel(-v6)?\.ipip|flannel\.ipip6|flannel\.sit"), {"ipip", "sit", "ip6tnl"}),
    (re.compile(r"flannel-wg(-v6)?"), {"wireguard", "tun"}),
    (re.compile(r"flannel[0-9]+"), {"tun"}),
)


def is_own_device(link: Link) -> bool:
    """Say whether a device is one that a flannel daemon makes."""
    return any(name.fullmatch(link.name) and link.kind in kinds for name, kinds in _OWN)
