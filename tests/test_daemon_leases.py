"""What becomes of the lease of a running `flanneld` on a real etcd."""

import pytest

from tests.test_daemon import CONFIG, PREFIX, Cluster, leads_to
from tests.waiting import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.etcd]

OTHER = (
    '{"PublicIP":"172.30.7.7","PublicIPv6":null,"BackendType":"vxlan",'
    '"BackendData":{"VNI":1,"VtepMAC":"7a:e3:ab:24:37:fb"}}'
)


@pytest.fixture
def cluster(make_namespace, tmp_path):
    cluster = Cluster(make_namespace, tmp_path)
    cluster.start_etcd()
    cluster.set_config(CONFIG)
    yield cluster
    cluster.close()


def test_a_subnet_that_another_node_takes_is_left_to_it_and_had_again_when_it_frees(cluster):
    one, two = cluster.add_node(), cluster.add_node()
    first, second = one.start().is_ready(), two.start().is_ready()
    wait_until(lambda: leads_to(one, two, second.key))
    key, ours = f"{PREFIX}/subnets/{first.key}", cluster.leases()[first.key]
    before = one.routes()
    cluster.ctl("put", key, OTHER)
    first.says(f"lease is another node's: lease {first.key} is held by 172.30.7.7")
    status, told = first.ask("/readyz")
    assert status == 503
    assert f"lease: {first.key} is held by 172.30.7.7: our pods stay as they are" in told
    assert first.ask("/healthz")[0] == 200
    assert one.routes() == before
    assert cluster.leases()[first.key] == OTHER
    cluster.ctl("del", key)
    wait_until(lambda: cluster.leases().get(first.key) == ours)
    wait_until(lambda: first.ask("/readyz")[0] == 200)
    assert first.process.poll() is None


def test_a_second_node_with_our_address_says_who_holds_it(cluster):
    one, two = cluster.add_node(), cluster.add_node()
    first = one.start("--public-ip=172.30.0.99").is_ready()
    second = two.start("--public-ip=172.30.0.99")
    second.says(f"another node that runs has our public address and holds lease {first.key}, ")
    assert not second.subnet_file.exists()
    assert list(cluster.leases()) == [first.key]
    # The first one goes for good, with all that it has.
    assert first.stop() == 0
    second.is_ready()
    assert second.key == first.key
