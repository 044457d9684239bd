import json

import pytest

from flanneld_py.core.errors import ConfigError
from flanneld_py.core.lease import Lease, LeaseAttrs
from flanneld_py.core.network_config import parse_network_config
from flanneld_py.core.prefix import parse_prefix
from flanneld_py.ctl.main import main
from flanneld_py.ctl.net import change_config, find_misfits


@pytest.mark.parametrize(
    ("text", "changes", "expected"),
    [
        ("{}", ["Network=10.5.0.0/16"], {"Network": "10.5.0.0/16"}),
        ("{}", ["Backend.Type=vxlan", "Backend.Port=4789"], {"Backend": {"Type": "vxlan", "Port": 4789}}),
        ('{"network":"10.5.0.0/16"}', ["Network=10.6.0.0/16"], {"Network": "10.6.0.0/16"}),
        ('{"SubnetLen":24,"Network":"10.5.0.0/16"}', ["subnetlen="], {"Network": "10.5.0.0/16"}),
        (
            '{"backend":{"type":"vxlan"}}',
            ["Backend.DirectRouting=true"],
            {"backend": {"type": "vxlan", "DirectRouting": True}},
        ),
        ("{}", ["EnableIPv6=true"], {"EnableIPv6": True}),
    ],
)
def test_keys_are_changed_one_by_one(text, changes, expected):
    assert json.loads(change_config(text, changes)) == expected


@pytest.mark.parametrize(
    ("text", "changes", "problem"),
    [
        ("{", [], "no JSON"),
        ("[]", [], "no JSON object"),
        ("{}", ["Network"], "KEY=VALUE"),
        ('{"a":1}', ["a.b=1"], "no object"),
    ],
)
def test_what_is_no_configuration_is_refused(text, changes, problem):
    with pytest.raises(ConfigError, match=problem):
        change_config(text, changes)


def test_leases_that_would_not_fit_are_found():
    config = parse_network_config('{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}')
    attrs = LeaseAttrs(1, None, "vxlan")
    leases = {name: Lease(parse_prefix(name), None, attrs) for name in ("10.5.2.0/24", "10.5.2.0/25", "10.6.2.0/24")}
    assert find_misfits(config, leases) == ["10.5.2.0/25", "10.6.2.0/24"]


@pytest.mark.etcd
class TestInEtcd:
    @pytest.fixture
    def net(self, shared_etcd, request, tmp_path):
        prefix = f"/{request.node.name}"
        flags = [
            f"--etcd-endpoints={shared_etcd.url}",
            f"--etcd-prefix={prefix}",
            f"--subnet-file={tmp_path}/subnet.env",
        ]
        return lambda *words: main(["net", *words, *flags])

    def read(self, etcd, name):
        return etcd.ctl("get", f"/{name}/config", "--print-value-only").strip()

    def test_set_and_show(self, net, shared_etcd, request, capsys):
        assert net("set", "Network=10.5.0.0/16", "Backend.Type=vxlan") == 0
        written = self.read(shared_etcd, request.node.name)
        assert json.loads(written) == {"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}
        assert net("set", "Backend.VNI=7") == 0
        assert json.loads(self.read(shared_etcd, request.node.name))["Backend"] == {"Type": "vxlan", "VNI": 7}
        capsys.readouterr()
        assert net("show", "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert told["means"]["ipv4"] == "10.5.0.0/16: 255 subnets of /24, from 10.5.1.0 to 10.5.255.0"

    @pytest.mark.parametrize(
        ("keys", "problem"),
        [
            (["Network=10.5.0.0/40"], "Network"),
            (["Network=10.5.0.0/16", "Backend.Type=carrier-pigeon"], "Backend.Type"),
            (["Network=10.5.0.0/16", "Backend.Type=vxlan", "Backend.VNI=-1"], "VNI"),
            (["Network=10.5.0.0/16", "Backend.Type=vxlan", "Bckend.VNI=7"], "Bckend (Backend?): no such key"),
            (["Network=10.5.0.0/16", "Backend.Type=vxlan", "Backend.Prot=7"], "Backend.Prot (Backend.Port?): no such"),
            (["Network=10.5.0.0/16", "Backend.Type=vxlan", "Vni=7"], "Vni (Backend.VNI?): no such key"),
            (["Network=10.5.0.0/16", "Backend.Type=udp", "Backend.VNI=7"], "Backend.VNI: no such key with udp; there"),
        ],
    )
    def test_what_no_daemon_could_use_is_not_written(self, net, shared_etcd, request, capsys, keys, problem):
        assert net("set", *keys) == 1
        assert problem in capsys.readouterr().err
        assert self.read(shared_etcd, request.node.name) == ""

    def test_a_key_that_nobody_knows_is_written_by_force_and_then_in_nobodys_way(self, net, shared_etcd, request):
        begin = ("Network=10.5.0.0/16", "Backend.Type=vxlan", "ipv6network=fd42::/48")
        assert net("set", *begin, "Comment=ours", "Backend.Remark=ours", "backend.vni=7", "--force") == 0
        assert net("set", "SubnetLen=25") == 0
        written = json.loads(self.read(shared_etcd, request.node.name))
        assert (written["Comment"], written["Backend"]["Remark"]) == ("ours", "ours")
        assert net("set", "Comment=", "SubnetLen=25") == 0
        assert "Comment" not in self.read(shared_etcd, request.node.name)

    def test_leases_that_would_not_fit_stop_it_unless_forced(self, net, shared_etcd, request, capsys):
        net("set", "Network=10.5.0.0/16", "Backend.Type=vxlan")
        shared_etcd.ctl("put", f"/{request.node.name}/subnets/10.5.2.0-24", '{"PublicIP":"172.30.0.2"}')
        assert net("set", "Network=10.6.0.0/16") == 1
        assert "10.5.2.0-24 would not fit" in capsys.readouterr().err
        assert "10.5.0.0/16" in self.read(shared_etcd, request.node.name)
        assert net("set", "Network=10.6.0.0/16", "--dry-run", "--force") == 0
        assert "10.5.0.0/16" in self.read(shared_etcd, request.node.name)
        assert net("set", "Network=10.6.0.0/16", "--force") == 0
        assert "10.6.0.0/16" in self.read(shared_etcd, request.node.name)

    def test_from_a_file(self, net, shared_etcd, request, tmp_path):
        (tmp_path / "config.json").write_text('{"Network":"10.7.0.0/16"}')
        assert net("set", "--file", str(tmp_path / "config.json"), "Backend.Type=vxlan") == 0
        assert "10.7.0.0/16" in self.read(shared_etcd, request.node.name)

    def test_none_yet_and_one_that_is_broken(self, net, shared_etcd, request, capsys):
        assert net("show") == 1
        assert "there is no configuration yet" in capsys.readouterr().err
        shared_etcd.ctl("put", f"/{request.node.name}/config", '{"Network":"x"}')
        assert net("show") == 3
        assert "no daemon can use it: Network" in capsys.readouterr().err
