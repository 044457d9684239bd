import re
from ipaddress import ip_address

import pytest

from flanneld_py.cli.flags import FlagError, parse_flags
from flanneld_py.cli.flanneld_flags import FLAGS, make_options
from flanneld_py.core.traffic_rules import RuleWish
from flanneld_py.core.underlay import UplinkWish

GO_FLAGS = {
    "etcd-endpoints": "http://127.0.0.1:4001,http://127.0.0.1:2379",
    "etcd-prefix": "/coreos.com/network",
    "etcd-keyfile": "",
    "etcd-certfile": "",
    "etcd-cafile": "",
    "etcd-username": "",
    "etcd-password": "",
    "iface": (),
    "iface-regex": (),
    "iface-can-reach": None,
    "public-ip": None,
    "public-ipv6": None,
    "subnet-file": "/run/flannel/subnet.env",
    "subnet-lease-renew-margin": 60,
    "ip-masq": False,
    "ip-masq-fully-random-disable": False,
    "ip-blackhole-route": False,
    "iptables-forward-rules": True,
    "iptables-resync": 5.0,
    "healthz-ip": "0.0.0.0",
    "healthz-port": 0,
    "kube-subnet-mgr": False,
    "kube-api-url": "",
    "kube-annotation-prefix": "flannel.alpha.coreos.com",
    "kubeconfig-file": "",
    "net-config-path": "/etc/kube-flannel/net-conf.json",
    "set-node-network-unavailable": True,
    "v": 0,
    "vmodule": (),
    "log_backtrace_at": "",
    "version": False,
}
"""Those of Go flanneld 0.28 with their defaults."""

SECRET = "correct horse battery staple"  # noqa: S105 - a test's


def options(*words, **environ):
    return make_options(parse_flags(FLAGS, words, environ), environ)


def refuse(*words, **environ):
    with pytest.raises(FlagError) as caught:
        options(*words, **environ)
    return str(caught.value)


def test_every_flag_of_go_flanneld_with_its_default():
    defaults = {flag.name: flag.default for flag in FLAGS}
    assert {name: defaults.get(name, "missing") for name in GO_FLAGS} == GO_FLAGS


def test_variables_are_named_as_go_flanneld_names_them():
    named = {flag.name: flag.variable for flag in FLAGS}
    assert named["etcd-prefix"] == "FLANNELD_ETCD_PREFIX"
    assert named["subnet-lease-renew-margin"] == "FLANNELD_SUBNET_LEASE_RENEW_MARGIN"


def test_every_flag_tells_what_it_is():
    assert all(flag.help and not flag.help.endswith(".") for flag in FLAGS)
    assert len({flag.name for flag in FLAGS}) == len(FLAGS)


def test_defaults():
    made = options()
    assert [str(endpoint) for endpoint in made.store.endpoints] == ["http://127.0.0.1:4001", "http://127.0.0.1:2379"]
    assert made.store.prefix == "/coreos.com/network"
    assert made.uplink == UplinkWish()
    assert str(made.subnet_file) == "/run/flannel/subnet.env"
    assert str(made.socket_path) == "/run/flannel/subnet.sock"
    assert (made.renew_margin, made.resync_interval) == (3600.0, 60.0)
    assert (made.healthz_ip, made.healthz_port) == ("0.0.0.0", 0)
    assert made.rules == RuleWish(masquerade=False, random_ports=True, forward=True)
    assert (made.rules_resync, made.blackhole_route, made.cni_service) == (5.0, False, True)


def test_flags_reach_the_options():
    made = options(
        "-etcd-endpoints=https://10.0.0.1:2379, https://[fd00::1]",
        "--etcd-prefix=/other",
        "--etcd-cafile=ca.pem",
        "--etcd-certfile=cert.pem",
        "--etcd-keyfile=key.pem",
        "--etcd-username=root",
        "--iface=eth1",
        "--iface=172.30.0.11",
        "--iface-regex=^eth",
        "--iface-can-reach=fd30::1",
        "--public-ip=198.51.100.7",
        "--public-ipv6=2001:db8::7",
        "--subnet-file=/tmp/lab/node1/subnet.env",
        "--subnet-lease-renew-margin=0x1e",
        "--ip-masq",
        "--ip-masq-fully-random-disable",
        "--iptables-forward-rules=false",
        "--iptables-resync=30",
        "--ip-blackhole-route",
        "--cni-service=false",
        "--healthz-ip=127.0.0.1",
        "--healthz-port=8471",
        "--resync-interval=1m30s",
    )
    assert [str(endpoint) for endpoint in made.store.endpoints] == ["https://10.0.0.1:2379", "https://[fd00::1]:2379"]
    etcd = made.store
    assert (etcd.prefix, etcd.cafile, etcd.certfile, etcd.keyfile) == ("/other", "ca.pem", "cert.pem", "key.pem")
    assert made.uplink == UplinkWish(
        ("eth1", "172.30.0.11"),
        (re.compile("^eth"),),
        ip_address("fd30::1"),
        ip_address("198.51.100.7"),
        ip_address("2001:db8::7"),
    )
    assert str(made.socket_path) == "/tmp/lab/node1/subnet.sock"
    assert (made.renew_margin, made.resync_interval) == (1800.0, 90.0)
    assert made.rules == RuleWish(masquerade=True, random_ports=False, forward=False)
    assert (made.rules_resync, made.blackhole_route, made.cni_service) == (30.0, True, False)
    assert (made.healthz_ip, made.healthz_port) == ("127.0.0.1", 8471)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--etcd-endpoints=10.0.0.1",), "--etcd-endpoints: '10.0.0.1' is no address"),
        (("--etcd-endpoints=",), "--etcd-endpoints: it is empty"),
        (("--public-ip=fd00::1",), "--public-ip: fd00::1 is no IPv4 address"),
        (("--public-ipv6=10.0.0.1",), "--public-ipv6: 10.0.0.1 is no IPv6 address"),
        (("--public-ip=here",), "--public-ip: 'here' is no address"),
        (("--iface-can-reach=there",), "--iface-can-reach: 'there' is no address"),
        (("--subnet-lease-renew-margin=0",), "--subnet-lease-renew-margin: 0 is out of bounds; expected 1 to 1439"),
        (("--subnet-lease-renew-margin=1440",), "--subnet-lease-renew-margin: 1440 is out of bounds"),
        (("--healthz-port=65536",), "--healthz-port: 65536 is out of bounds"),
        (("--etcd-certfile=cert.pem",), "--etcd-keyfile: it is missing"),
        (("--etcd-keyfile=key.pem",), "--etcd-certfile: it is missing"),
        (("--etcd-password=x",), "--etcd-username: it is missing"),
        (("--resync-interval=0",), "--resync-interval: it must be over 0 s"),
        (("--iptables-resync=0",), "--iptables-resync: it must be over 0 s"),
        (("--etcd-password-file=/nonexistent",), "--etcd-password-file: "),
        (("--iface-regex=(",), "--iface-regex: '(' is no regular expression"),
        (("--subnet-file=",), "--subnet-file: '' names no file"),
        (("--subnet-file=/",), "--subnet-file: '/' names no file"),
        (("--kube-subnet-mgr",), "NODE_NAME: it is not set"),
    ],
)
def test_what_cannot_be_names_its_flag(words, told):
    assert refuse(*words).startswith(told)


def test_kubernetes_in_place_of_etcd():
    made = options("--kube-subnet-mgr", "--kubeconfig-file=/etc/kubeconfig", NODE_NAME="node1").store
    assert (made.node_name, made.kubeconfig, made.api_url) == ("node1", "/etc/kubeconfig", "")
    assert made.annotation_prefix == "flannel.alpha.coreos.com/"
    assert str(made.net_config) == "/etc/kube-flannel/net-conf.json"
    assert made.set_network_unavailable
    made = options(
        "--kube-subnet-mgr",
        "--kube-api-url=https://10.0.0.1:6443",
        "--kube-annotation-prefix=example.com/lab",
        "--net-config-path=/tmp/net-conf.json",
        "--set-node-network-unavailable=false",
        POD_NAME="flannel-x",
        POD_NAMESPACE="kube-flannel",
    ).store
    assert (made.node_name, made.pod_name, made.pod_namespace) == ("", "flannel-x", "kube-flannel")
    assert (made.api_url, made.annotation_prefix) == ("https://10.0.0.1:6443", "example.com/lab-")
    assert str(made.net_config) == "/tmp/net-conf.json"
    assert not made.set_network_unavailable


@pytest.mark.parametrize(
    ("words", "environ", "told"),
    [
        ((), {"POD_NAME": "x"}, "NODE_NAME: it is not set"),
        ((), {"NODE_NAME": "node1"}, "--kubeconfig-file: it is missing"),
        ((), {"NODE_NAME": "node1", "KUBERNETES_SERVICE_HOST": "10.96.0.1"}, "--kubeconfig-file: it is missing"),
        (
            ("--kube-annotation-prefix=a/b/c", "--kube-api-url=x"),
            {"NODE_NAME": "n"},
            "--kube-annotation-prefix: 'a/b/c'",
        ),
        (
            ("--kube-annotation-prefix=nodots", "--kube-api-url=x"),
            {"NODE_NAME": "n"},
            "--kube-annotation-prefix: 'nodots'",
        ),
    ],
)
def test_what_kubernetes_needs_is_told(words, environ, told):
    assert refuse("--kube-subnet-mgr", *words, **environ).startswith(told)


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_password_from_a_file(tmp_path, ending):
    file = tmp_path / "password"
    file.write_bytes((SECRET + ending).encode())
    assert options("--etcd-username=root", f"--etcd-password-file={file}").store.password == SECRET
    # The file goes before what everybody can read in the list of processes.
    words = ("--etcd-username=root", f"--etcd-password-file={file}", "--etcd-password=x")
    assert options(*words).store.password == SECRET


def test_password_from_the_variable_or_the_flag():
    assert options("--etcd-username=root", FLANNELD_ETCD_PASSWORD=SECRET).store.password == SECRET
    assert options("--etcd-username=root", f"--etcd-password={SECRET}").store.password == SECRET


def test_password_is_never_shown():
    made = options("--etcd-username=root", f"--etcd-password={SECRET}")
    assert SECRET not in repr(made)
    assert SECRET not in str(made.store)
    assert SECRET not in refuse(f"--etcd-endpoints=http://root:{SECRET}@10.0.0.1:2379")
