"""The real `flanneld --on-demand` while it gets no CPU, as others see it: by `ip neigh`, and what is reached after."""

import socket

import pytest

from tests.test_daemon import cluster, empty_cluster, leads_to
from tests.waiting import wait_until

__all__ = ["cluster", "empty_cluster"]

pytestmark = [pytest.mark.kernel, pytest.mark.etcd]

TABLE = "table ip flannel-misses-flannel.1"


def send(node, addresses):
    """Send a packet to each without a pause; return how many the kernel took."""

    def send_all():
        taken = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for address in addresses:
                try:
                    sender.sendto(b"x", (address, 9))
                    taken += 1
                except OSError:
                    continue
        return taken

    return node.namespace.run(send_all)


def unresolved(node):
    lines = node.ip("neigh show dev flannel.1").splitlines()
    return [line for line in lines if line.split()[-1] in {"INCOMPLETE", "FAILED"}]


def test_burst_while_the_daemon_stands_still(cluster):
    one, two = cluster.add_node(), cluster.add_node()
    first = one.start("--on-demand").is_ready()
    second = two.start().is_ready()
    wait_until(lambda: TABLE in one.ip("list tables", "nft"))
    wait_until(lambda: one.routes().get("10.5.0.0/16", (0,))[0] == 119)
    with first.standing_still():
        own, rightful = (daemon.key.partition("-")[0] for daemon in (first, second))
        strangers = [f"10.5.{index}.{host}" for host in (1, 2) for index in range(2, 250)]
        taken = send(one, [one for one in strangers if one.rpartition(".")[0] + ".0" not in {own, rightful}])
        assert 0 < len(unresolved(one)) == taken < 64
    wait_until(lambda: unresolved(one) == [])

    def reaches():
        send(one, [rightful.rpartition(".")[0] + ".9"])
        return leads_to(one, two, second.key)

    wait_until(reaches)
    assert "Traceback" not in first.log
    # Whoever programs all peers asks for none.
    assert first.stop() == 0
    one.start().is_ready()
    wait_until(lambda: TABLE not in one.ip("list tables", "nft"))
