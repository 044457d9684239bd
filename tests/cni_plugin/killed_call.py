"""A call of the plugin in its own process, killed after the N-th change it makes: `killed_call.py N`."""

import os
import sys

from cni_plugin.alone import serve_alone
from tests.cni_plugin.killing import kill_after

kill_after(int(sys.argv[1]))
status, output = serve_alone(dict(os.environb), sys.stdin.buffer.read())
sys.stdout.buffer.write(output)
sys.stdout.flush()
os._exit(status)
