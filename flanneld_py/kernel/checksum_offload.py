"""The checksum offload of a device (include/uapi/linux/ethtool.h), and kernels on which VXLAN must do without.

Before Linux 5.7 masquerading a VXLAN packet with random ports wrote a wrong checksum where there was to be none; with
the checksum left to the device, what goes through the tunnel then stalls for 1 to 63 seconds (flannel-io/flannel#1279,
projectcalico/calico#3145, kubernetes/kubernetes#88986). The fix is Linux' commit "netfilter: nat: never update the UDP
checksum when it's 0" (net/netfilter/nf_nat_proto.c): pulled on 2020-05-06 between 5.7-rc4 and -rc5, and in the stable
releases below, by their announcements of May 2020.
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
_DEBIAN = re.compile(r"Debian ((\d+\.\d+)\.\d+)")
_UBUNTU = re.compile(r"^Ubuntu \S+ ((\d+\.\d+)\.\d+)")
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


def read_release() -> str:
    """Return the release of the kernel, `x.y.z` of the stable series that it is made from where that can be told."""
    told = os.uname()
    try:
        with open("/proc/version_signature", encoding="ascii", errors="replace") as file:
            signature = file.read()
    except OSError:
        signature = ""
    return find_stable_release(told.release, told.version, signature)


def find_stable_release(release: str, version: str, signature: str) -> str:
    """Return which stable release a kernel is made from, its own where the distribution does not tell.

    Debian and Ubuntu call theirs `4.19.0-22-amd64` and `5.4.0-150-generic`; Debian tells in `uname -v`, Ubuntu in
    /proc/version_signature (as libbpf has it, src/libbpf_probes.c).
    """
    for pattern, text in ((_DEBIAN, version), (_UBUNTU, signature)):
        match = pattern.search(text)
        if match and release.startswith(f"{match[2]}."):
            return match[1]
    return release


def ensure_no_offload(device: str, release: str | None = None) -> bool:
    """Have a device's checksums written by the kernel, where they must be; return whether they were not.

    `release` is this kernel's unless given. Raises KernelError.
    """
    if not stalls_with_offload(read_release() if release is None else release):
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
