"""The checksum offload of a device (include/uapi/linux/ethtool.h), and kernels on which VXLAN must do without.

Before Linux 5.7 masquerading a VXLAN packet with random ports wrote a wrong checksum where there was to be none
("netfilter: nat: never update the UDP checksum when it's 0"); with the checksum left to the device, what goes through
the tunnel then stalls for 1 to 63 seconds. The fix is in the stable series as listed here.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
from array import array

from flanneld_py.core.errors import KernelError

_SIOCETHTOOL = 0x8946
_ETHTOOL_GTXCSUM, _ETHTOOL_STXCSUM = 0x16, 0x17
_VALUE = struct.Struct("=II")
_REQUEST = struct.Struct("@16sP16x")
_RELEASE = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
_FIXED = {(4, 14): 181, (4, 19): 123, (5, 4): 41, (5, 6): 13}
"""The first release with the fix in a stable series; from 5.7 on all have it."""


def stalls_with_offload(release: str) -> bool:
    """Say whether VXLAN stalls with checksum offload on a kernel of this release (`uname -r`)."""
    match = _RELEASE.match(release)
    if match is None:
        return False
    major, minor, patch = (int(part or 0) for part in match.groups())
    fixed = _FIXED.get((major, minor))
    return (major, minor) < (5, 7) and (fixed is None or patch < fixed)


def ensure_no_offload(device: str, release: str | None = None) -> bool:
    """Have a device's checksums written by the kernel, where they must be; return whether they were not.

    `release` is this kernel's unless given. Raises KernelError.
    """
    if not stalls_with_offload(os.uname().release if release is None else release):
        return False
    if not _ask(device, _ETHTOOL_GTXCSUM, 0):
        return False
    _ask(device, _ETHTOOL_STXCSUM, 0)
    return True


def has_offload(device: str) -> bool:
    """Say whether the checksums of what a device sends are left to it; one that cannot tell has none."""
    try:
        return bool(_ask(device, _ETHTOOL_GTXCSUM, 0))
    except KernelError:
        return False


def _ask(device: str, command: int, value: int) -> int:
    data = array("B", _VALUE.pack(command, value))
    address, _ = data.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        try:
            fcntl.ioctl(opened, _SIOCETHTOOL, _REQUEST.pack(device.encode(), address))
        except OSError as error:
            raise KernelError(error.errno or 0, f"checksum offload of {device}", error.strerror or "") from error
    return int(_VALUE.unpack(data)[1])
