"""A process that serves the plugin's calls as the daemon does, and nothing else: `pod_daemon.py SUBNET_FILE [STEPS]`.

It has the daemon's capabilities, says on its standard output when it listens, and ends with its standard input, or, as
if killed, after so many changes.
"""

import logging
import sys
import threading
from pathlib import Path

from flanneld_py.agent.pod_service import start_pod_service
from flanneld_py.kernel.privileges import CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN, CAP_SYS_PTRACE, keep_capabilities
from tests.cni_plugin.killing import kill_after

logging.basicConfig(level=logging.DEBUG, format="%(message)s")
keep_capabilities(CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN, CAP_SYS_PTRACE)
service = start_pod_service(Path(sys.argv[1]), list)
if len(sys.argv) > 2:
    # What this thread changes is no part of a call: it shuts the door in the end. Nor is what is announced afterwards.
    kill_after(int(sys.argv[2]), spared={threading.current_thread().name, "cni herald"})
sys.stdout.write("listening\n" if service else "refused\n")
sys.stdout.flush()
sys.stdin.read()
if service:
    service.close()
