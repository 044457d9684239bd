"""Each in a process of its own: what is given up does not come back."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.kernel

SCRIPT = """
import os, socket, subprocess, sys
from flanneld_py.kernel.privileges import *
assert keep_capabilities(CAP_NET_ADMIN, CAP_NET_RAW)
print(*map(hex, read_capabilities()[:2]), read_capabilities()[2])
assert not keep_capabilities(CAP_NET_ADMIN, CAP_NET_RAW)
socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close()
for refused in (lambda: os.chroot("/"), lambda: os.sethostname("x") if hasattr(os, "sethostname") else os.chroot("/")):
    try:
        refused()
    except PermissionError:
        print("refused")
print(subprocess.run(["grep", "-E", "Cap(Eff|Prm)|NoNew", "/proc/self/status"], capture_output=True, text=True).stdout)
"""


def test_all_but_what_is_kept_is_given_up_for_good_also_in_children():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert words[:3] == ["0x3000", "0x3000", "True"]
    assert words[3:5] == ["refused", "refused"]
    told = dict(zip(words[5::2], words[6::2], strict=True))
    assert (int(told["CapPrm:"], 16), int(told["CapEff:"], 16), told["NoNewPrivs:"]) == (0x3000, 0x3000, "1")
