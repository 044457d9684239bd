"""Has this process end, as if killed, after the N-th change that it makes from now on.

A change is a batch of kernel requests that is no mere question, a setting written, or a file made, moved or removed.
"""

import os
import threading

from flanneld_py.kernel import sysctl
from flanneld_py.kernel.netlink_socket import NetlinkSocket

KILLED = 9


def kill_after(steps, spared=()):
    """Count the changes of all threads but those whose names are spared."""
    left = steps

    def counted(work, is_change=lambda *_: True):
        def run(*arguments, **more):
            nonlocal left
            result = work(*arguments, **more)
            if is_change(*arguments) and threading.current_thread().name not in spared:
                left -= 1
            if left == 0:
                os._exit(KILLED)
            return result

        return run

    for name in ("rename", "link", "unlink", "mkdir", "ftruncate"):
        setattr(os, name, counted(getattr(os, name)))
    os.open = counted(os.open, lambda _, flags, *__: flags & os.O_CREAT)
    NetlinkSocket.execute_batch = counted(NetlinkSocket.execute_batch)
    sysctl.ensure_sysctl = counted(sysctl.ensure_sysctl)
