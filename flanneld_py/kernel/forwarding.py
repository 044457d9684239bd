"""The settings under /proc/sys by which the kernel forwards what comes and goes through our devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld_py.core.prefix import IPV4
from flanneld_py.kernel.families import SYSCTL_NAMES
from flanneld_py.kernel.sysctl import ensure_sysctl, read_sysctl

if TYPE_CHECKING:
    from flanneld_py.kernel.device import Sysctl

_STRICT = 1


def host_settings(family: int) -> Sysctl:
    """Return the setting that makes the host forward packets of a family at all."""
    if family == IPV4:
        return ("net", "ipv4", "ip_forward"), "1"
    return ("net", "ipv6", "conf", "all", "forwarding"), "1"


def heed_routers(device: str) -> bool:
    """Have a device go on hearing IPv6 routers when the host begins to forward; return whether it had to be told.

    The kernel forgets what a router has told, the default route with it, on devices with accept_ra 1 when forwarding is
    switched on; 2 means all the same (Documentation/networking/ip-sysctl.rst). Raises KernelError.
    """
    forwards = read_sysctl("net", "ipv6", "conf", "all", "forwarding") != "0"
    path = ("net", "ipv6", "conf", device, "accept_ra")
    return not forwards and read_sysctl(*path) == "1" and ensure_sysctl("2", *path)


def tunnel_settings(family: int, device: str) -> tuple[Sysctl, ...]:
    """Return what a tunnel's device needs: forwarding."""
    return ((("net", SYSCTL_NAMES[family], "conf", device, "forwarding"), "1"),)


def lenient_check(device: str) -> tuple[Sysctl, ...]:
    """Return the setting by which packets from an IPv4 device are not dropped for the way that they came, if it lacks.

    Where a node goes without the tunnel and its peer does not yet, packets come and go by different devices for a
    while; the strict check (rp_filter 1, which some distributions set) would drop them. The larger of the device's
    and the host's value counts, so the loose check (2) is as lenient as a device can be then; where there is no check,
    which costs a look-up for each packet, there is to be none. Raises KernelError.
    """
    path = ("net", "ipv4", "conf", device, "rp_filter")
    found = max(int(read_sysctl(*path)), int(read_sysctl("net", "ipv4", "conf", "all", "rp_filter")))
    return ((path, "2"),) if found == _STRICT else ()
