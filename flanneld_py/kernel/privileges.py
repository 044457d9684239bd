"""What this process may do: all capabilities but a few given up for good (capabilities(7), prctl(2)).

Capabilities belong to threads: this is to be called before the first thread is started.
"""

from __future__ import annotations

import os
import struct

from flanneld_py.core.errors import KernelError

CAP_NET_BIND_SERVICE = 10
CAP_NET_ADMIN = 12
CAP_NET_RAW = 13
CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21

_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPSET_NUMBERS = {"x86_64": 126, "aarch64": 91, "armv7l": 185, "riscv64": 91, "ppc64le": 184, "s390x": 185}
"""The C library has no capset; each machine numbers its system calls (its asm/unistd.h)."""
_VERSION_3 = 0x20080522
_STATUS = "/proc/thread-self/status"


def read_capabilities() -> tuple[int, int, bool]:
    """Return the effective and the bounding set as bits, and whether no new privileges can be gained."""
    fields = {}
    with open(_STATUS, encoding="ascii", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    return int(fields["CapEff"], 16), int(fields["CapBnd"], 16), fields.get("NoNewPrivs") == "1"


def keep_capabilities(*kept: int) -> bool:
    """Give up all capabilities but these, here and in what this process will run; return whether there was any need.

    Raises KernelError.
    """
    wanted = sum(1 << one for one in kept)
    effective, bounding, is_bound = read_capabilities()
    if not effective & ~wanted and not bounding & ~wanted and is_bound:
        return False
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: object) -> None:
        if getattr(libc, name)(*arguments) < 0:
            number = ctypes.get_errno()
            raise KernelError(number, "give up capabilities", os.strerror(number))

    call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for one in range(bounding.bit_length()):
        if bounding >> one & 1 and one not in kept:
            call("prctl", _PR_CAPBSET_DROP, one, 0, 0, 0)
    number = _CAPSET_NUMBERS.get(os.uname().machine)
    if number is None:
        raise KernelError(38, "give up capabilities", f"the number of capset is not known on {os.uname().machine}")
    left = effective & wanted
    header = struct.pack("=Ii", _VERSION_3, 0)
    low, high = left & 0xFFFFFFFF, left >> 32
    data = struct.pack("=IIIIII", low, low, 0, high, high, 0)
    call("syscall", number, header, data)
    return True
