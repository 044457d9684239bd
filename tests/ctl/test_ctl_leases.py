import json
import socket

import pytest

from flanneld_py.ctl.main import main

pytestmark = pytest.mark.etcd

VALUE = (
    '{"PublicIP":"172.30.0.%d","PublicIPv6":null,"BackendType":"vxlan",'
    '"BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:07"}}'
)


class Ctl:
    def __init__(self, etcd, prefix, folder, capsys):
        self.etcd = etcd
        self.prefix = prefix
        self._capsys = capsys
        self._flags = [f"--etcd-endpoints={etcd.url}", f"--etcd-prefix={prefix}", f"--subnet-file={folder}/subnet.env"]

    def __call__(self, *words):
        status = main([*words, *self._flags])
        said = self._capsys.readouterr()
        return status, said.out if status in {0, 3} else said.err

    def put(self, name, value, ttl=0):
        words = []
        if ttl:
            words = [f"--lease={self.etcd.ctl('lease', 'grant', str(ttl)).split()[1]}"]
        self.etcd.ctl("put", *words, f"{self.prefix}/subnets/{name}", value)

    def record(self, name):
        found = json.loads(self.etcd.ctl("get", f"{self.prefix}/subnets/{name}", "-w", "json")).get("kvs")
        return found[0] if found else None


@pytest.fixture
def ctl(shared_etcd, request, tmp_path, capsys):
    return Ctl(shared_etcd, f"/{request.node.name}", tmp_path, capsys)


def test_all_leases_by_address_and_what_cannot_be_read(ctl):
    for index in (10, 9, 100):
        ctl.put(f"10.5.{index}.0-24", VALUE % index)
    status, text = ctl("leases", "--json")
    assert status == 0
    assert [one["key"] for one in json.loads(text)["leases"]] == ["10.5.9.0-24", "10.5.10.0-24", "10.5.100.0-24"]
    ctl.put("nonsense", "x")
    status, text = ctl("leases")
    assert status == 3
    assert "3 leases" in text
    assert "nonsense" in text


@pytest.mark.parametrize("named", ["10.5.9.0-24", "10.5.9.0/24", "172.30.0.9"])
def test_one_lease_with_the_time_that_it_has_left(ctl, named):
    ctl.put("10.5.9.0-24", VALUE % 9, ttl=7200)
    status, text = ctl("lease", "show", named, "--json")
    told = json.loads(text)
    assert status == 0
    assert told["key"] == "10.5.9.0-24"
    assert 7000 < told["seconds_left"] <= 7200
    shown = [line.split() for line in ctl("lease", "show", named)[1].splitlines()]
    assert shown[0] == ["key", "10.5.9.0-24"]
    assert shown[-1] == ["time", "left", "2.0", "h"]


def test_no_such_lease(ctl):
    status, text = ctl("lease", "show", "10.5.9.0/24")
    assert status == 1
    assert "there is no lease 10.5.9.0-24" in text


def test_a_lease_becomes_a_reservation_and_keeps_its_value(ctl):
    ctl.put("10.5.9.0-24", VALUE % 9, ttl=7200)
    before = ctl.record("10.5.9.0-24")
    assert ctl("lease", "reserve", "10.5.9.0/24")[0] == 0
    after = ctl.record("10.5.9.0-24")
    assert after["value"] == before["value"]
    assert "lease" not in after
    assert "already" in ctl("lease", "reserve", "10.5.9.0/24")[1]


def test_a_free_subnet_is_reserved_for_a_node_to_come_and_a_taken_one_is_not(ctl):
    assert ctl("lease", "reserve", "10.5.9.0/24", "--public-ip=172.30.0.9")[0] == 0
    assert "lease" not in ctl.record("10.5.9.0-24")
    status, text = ctl("lease", "reserve", "10.5.9.0/24", "--public-ip=172.30.0.10")
    assert status == 1
    assert "is leased already" in text
    assert ctl("lease", "reserve", "10.5.8.0/24", "--public-ip=fd00::1")[0] == 1


def test_release_frees_a_subnet_even_of_a_key_that_cannot_be_read(ctl):
    ctl.put("10.5.9.0-24", VALUE % 9, ttl=7200)
    ctl.put("nonsense", "x")
    assert ctl("lease", "release", "172.30.0.9") == (0, "10.5.9.0-24: released\n")
    assert ctl("lease", "release", "nonsense")[0] == 0
    assert ctl.record("10.5.9.0-24") is None
    assert ctl.record("nonsense") is None


def test_an_etcd_that_is_away_is_named(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    assert main(["leases", f"--etcd-endpoints=http://127.0.0.1:{port}", f"--subnet-file={tmp_path}/subnet.env"]) == 1
    assert f"127.0.0.1:{port}" in capsys.readouterr().err
