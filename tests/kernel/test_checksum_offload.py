import fcntl
import socket
import struct
from array import array

import pytest

from flanneld_py.core.errors import KernelError
from flanneld_py.kernel.checksum_offload import ensure_no_offload, find_stable_release, stalls_with_offload

AFFECTED, FIXED = "5.4.40", "6.18.44"


@pytest.mark.parametrize(
    "release",
    ["3.10.0-1160.el7.x86_64", "4.14.180", "4.19.122-rc1", "4.20.1", "5.3.0-generic", "5.4.40", "5.5.19", "5.6.12"],
)
def test_kernels_that_stall(release):
    assert stalls_with_offload(release)


@pytest.mark.parametrize(
    "release", ["4.14.181", "4.19.123", "5.4.41", "5.6.13", "5.7", "5.10.0-9-amd64", "6.18.44-fc", "7.0", "strange"]
)
def test_kernels_that_do_not(release):
    assert not stalls_with_offload(release)


@pytest.mark.parametrize(
    ("release", "version", "signature", "stable"),
    [
        ("4.19.0-22-amd64", "#1 SMP Debian 4.19.260-1 (2022-09-29)", "", "4.19.260"),
        ("5.4.0-150-generic", "#167-Ubuntu SMP", "Ubuntu 5.4.0-150.167-generic 5.4.233\n", "5.4.233"),
        ("6.18.44-fc", "#1 SMP PREEMPT_DYNAMIC", "", "6.18.44-fc"),
        # Under setarch, or in a container whose image tells of another kernel.
        ("2.6.78-22-amd64", "#1 SMP Debian 6.1.112-1 (2024-09-30)", "", "2.6.78-22-amd64"),
        ("5.4.0-150-generic", "#167-Ubuntu SMP", "nonsense", "5.4.0-150-generic"),
    ],
)
def test_which_stable_release_a_distribution_has_made_its_kernel_from(release, version, signature, stable):
    assert find_stable_release(release, version, signature) == stable


def offload_of(host, device):
    """What ethtool reads, asked here again."""

    def ask():
        data = array("B", struct.pack("=II", 0x16, 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
            fcntl.ioctl(opened, 0x8946, struct.pack("@16sP16x", device.encode(), data.buffer_info()[0]))
        return bool(struct.unpack("=II", data)[1])

    return host.namespace.run(ask)


@pytest.mark.kernel
def test_it_is_switched_off_where_it_must_be_and_only_there(host):
    host.make_vxlan()
    assert offload_of(host, "flannel.1")
    assert not host.namespace.run(ensure_no_offload, "flannel.1", FIXED)
    assert offload_of(host, "flannel.1")
    assert host.namespace.run(ensure_no_offload, "flannel.1", AFFECTED)
    assert not offload_of(host, "flannel.1")
    assert not host.namespace.run(ensure_no_offload, "flannel.1", AFFECTED)


@pytest.mark.kernel
def test_a_device_that_is_not_there(host):
    with pytest.raises(KernelError, match="checksum offload of"):
        host.namespace.run(ensure_no_offload, "flannel.1", AFFECTED)
