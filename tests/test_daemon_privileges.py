"""What a running daemon may still do, as its kernel tells."""

from pathlib import Path

import pytest

from tests.test_daemon import cluster, empty_cluster

pytestmark = [pytest.mark.kernel, pytest.mark.etcd]

__all__ = ["cluster", "empty_cluster"]

NET_BIND_SERVICE, NET_ADMIN, NET_RAW, SYS_PTRACE, SYS_ADMIN = 10, 12, 13, 19, 21


def capabilities_of(daemon):
    """The permitted and the bounding set, by number."""
    lines = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return [{bit for bit in range(64) if int(fields[name], 16) >> bit & 1} for name in ("CapPrm", "CapBnd")]


@pytest.mark.parametrize(("words", "more"), [((), {SYS_ADMIN, SYS_PTRACE}), (("--cni-service=false",), set())])
def test_pods_namespaces_may_be_entered_only_to_serve_them(cluster, words, more):
    daemon = cluster.add_node().start(*words).is_ready()
    kept = {NET_BIND_SERVICE, NET_ADMIN, NET_RAW} | more
    assert capabilities_of(daemon) == [kept, kept]
    assert daemon.subnet_file.with_suffix(".cni.sock").exists() == bool(more)
