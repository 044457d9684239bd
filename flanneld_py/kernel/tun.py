"""TUN devices (include/uapi/linux/if_tun.h; Documentation/networking/tuntap.rst): made to last, and attached to."""

from __future__ import annotations

import fcntl
import os
import struct
from typing import TYPE_CHECKING

from flanneld_py.core.errors import KernelError

if TYPE_CHECKING:
    from flanneld_py.kernel.device import LinkOptions

KIND = "tun"
_PATH = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_REQUEST = struct.Struct("16sH22x")

_IFLA_TUN_TYPE = 3
_IFLA_TUN_PI = 4
_IFLA_TUN_VNET_HDR = 5
_IFLA_TUN_PERSIST = 6
_IFLA_TUN_MULTI_QUEUE = 7


def tun_options() -> LinkOptions:
    """Return the attributes of a device that carries bare IP packets and outlives who made it."""
    return (
        (_IFLA_TUN_TYPE, b"\1"),
        (_IFLA_TUN_PI, b"\0"),
        (_IFLA_TUN_VNET_HDR, b"\0"),
        (_IFLA_TUN_PERSIST, b"\1"),
        (_IFLA_TUN_MULTI_QUEUE, b"\0"),
    )


def make_tun(name: str) -> None:
    """Make a lasting TUN device that nobody is attached to. Raises KernelError."""
    descriptor = attach_tun(name)
    try:
        fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
    except OSError as error:
        raise KernelError(error.errno or 0, f"make device {name} last", error.strerror or "") from error
    finally:
        os.close(descriptor)


def attach_tun(name: str) -> int:
    """Return a descriptor that reads what is sent to a TUN device, a packet at a time, and writes what comes from it.

    Reading does not wait. The device is made if it is not there, and goes with the descriptor then. Raises KernelError,
    EBUSY where another is attached.
    """
    try:
        descriptor = os.open(_PATH, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise KernelError(error.errno or 0, f"open {_PATH}", error.strerror or "") from error
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, _REQUEST.pack(name.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError as error:
        os.close(descriptor)
        raise KernelError(error.errno or 0, f"attach to device {name}", error.strerror or "") from error
    return descriptor


def check_tun() -> None:
    """Raise KernelError saying what to do where TUN devices cannot be made."""
    try:
        descriptor = os.open(_PATH, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        reason = f"{error.strerror}: modprobe tun, give a container the device, or choose another backend"
        raise KernelError(error.errno or 0, f"open {_PATH}", reason) from error
    os.close(descriptor)
