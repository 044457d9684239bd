"""What the machine must have for a backend to carry packets in a lab; tests are skipped where it has not."""

import os
import shutil
from pathlib import Path

import pytest

from flanneld_py.kernel.ipip import has_ipip
from flanneld_py.kernel.netlink_socket import NetlinkSocket
from flanneld_py.kernel.wireguard_netlink import has_wireguard

PEERS = Path(__file__).parents[2] / ".cache" / "peers"
GO_FLANNEL = PEERS / "flannel"
SEARCH_PATH = f"{PEERS}:{os.environ['PATH']}"

needs_go_flannel = pytest.mark.skipif(not GO_FLANNEL.exists(), reason="Go flannel is not built: make peers")


def missing_for(backend):
    """Say what is missing for a backend; empty if nothing is."""
    if backend == "ipip":
        with NetlinkSocket() as sock:
            return "" if has_ipip(sock) else "this kernel has no ipip: make test-kernels has one that does"
    if backend == "wireguard":
        if has_wireguard():
            return ""
        if shutil.which("wireguard-go", path=SEARCH_PATH) is None:
            return "no wireguard-go: apt-get install wireguard-go, or make peers"
    if backend in {"udp", "wireguard"} and not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "no /dev/net/tun: modprobe tun"
    return ""


def require(lab, backend):
    """Skip the test where something is missing; let the lab's daemons find what has been built here."""
    reason = missing_for(backend)
    if reason:
        pytest.skip(reason)
    lab.environment["PATH"] = SEARCH_PATH
