import socket

import pytest

from flanneld_py.core.errors import KernelError
from flanneld_py.kernel.link_statistics import read_link_statistics
from tests.waiting import wait_until

pytestmark = pytest.mark.kernel


def send(count, size):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(count):
            sender.sendto(bytes(size), ("127.0.0.1", 9))


def test_counts_what_a_device_carries(host):
    lo = host.index("lo")
    before = read_link_statistics(host.sock, lo)
    host.namespace.run(send, 10, 100)
    wait_until(lambda: read_link_statistics(host.sock, lo).tx_packets >= before.tx_packets + 10)
    after = read_link_statistics(host.sock, lo)
    told = host.link("lo").get_attr("IFLA_STATS64")
    assert after.name == "lo"
    assert after.tx_bytes - before.tx_bytes >= 10 * 128
    assert after[1:] == tuple(
        told[f"{way}_{what}"] for what in ("packets", "bytes", "errors", "dropped") for way in ("rx", "tx")
    )


def test_a_device_that_is_gone(host):
    with pytest.raises(KernelError):
        read_link_statistics(host.sock, 4711)
