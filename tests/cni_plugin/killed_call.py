"""A call of the plugin in its own process that ends, as if killed, after the N-th change it makes: `killed_call.py N`.

A change is a batch of kernel requests that is no mere question, a setting written, or a file made, moved or removed.
"""

import os
import sys

from cni_plugin.alone import serve_alone
from flanneld_py.kernel import sysctl
from flanneld_py.kernel.netlink_socket import NetlinkSocket

KILLED = 9
left = int(sys.argv[1])


def counted(work):
    def run(*arguments, **more):
        global left  # noqa: PLW0603 - the whole process is about this number
        result = work(*arguments, **more)
        left -= 1
        if left == 0:
            os._exit(KILLED)
        return result

    return run


for name in ("rename", "link", "unlink", "mkdir"):
    setattr(os, name, counted(getattr(os, name)))
NetlinkSocket.execute_batch = counted(NetlinkSocket.execute_batch)
sysctl.ensure_sysctl = counted(sysctl.ensure_sysctl)
status, output = serve_alone(dict(os.environb), sys.stdin.buffer.read())
sys.stdout.buffer.write(output)
sys.stdout.flush()
os._exit(status)
