"""A node in a guest: flanneld from the Debian package under a real systemd, with another node beside it.

The other node, with etcd, is a network namespace `far` behind the guest's eth0.
"""

import json
from contextlib import contextmanager

import pytest

from tests.deploy.systemd_guest import Guest
from tests.store.etcd_server import find_program
from tests.test_daemon import FLANNELD

ETCD = "http://172.30.0.1:2379"
NETWORK = """
ip netns add far
ip link add eth0 type veth peer name eth0 netns far
ip addr add 172.30.0.11/16 dev eth0
ip link set eth0 up
ip route add default via 172.30.0.1
ip -n far addr add 172.30.0.1/16 dev eth0
ip -n far link set eth0 up
ip -n far link set lo up
ip -n far route add default via 172.30.0.11
"""
ENVIRONMENT = f"""\
FLANNELD_ETCD_ENDPOINTS={ETCD}
FLANNELD_IP_MASQ=true
FLANNELD_GUARD=off
"""
_CNI = '{"cniVersion":"1.0.0","name":"cbr0","type":"flannel","delegate":{"isDefaultGateway":true}}'


class GuestNode(Guest):
    """The guest with the package, which waits for etcd until `start_etcd`."""

    def install(self, package):
        self.sh(f"dpkg --no-triggers --install --force-confmiss {package}")
        self.sh(f"cat > /etc/flanneld-py/flanneld.env <<'END'\n{ENVIRONMENT}END")

    def start_etcd(self):
        etcd = find_program("etcd")
        self.sh(
            "systemd-run --unit=etcd --property=NetworkNamespacePath=/run/netns/far --setenv=PATH=$PATH"
            f" {etcd} --data-dir=/run/etcd --listen-client-urls={ETCD} --advertise-client-urls={ETCD}"
        )
        self.wait_for(f"{self._etcdctl} endpoint health")
        self.set_config(Type="vxlan")

    @property
    def _etcdctl(self):
        return f"ETCDCTL_API=3 ip netns exec far {find_program('etcdctl')} --endpoints={ETCD}"

    def etcdctl(self, words):
        return self.sh(f"{self._etcdctl} {words}")

    def set_config(self, **backend):
        config = json.dumps({"Network": "10.5.0.0/16", "Backend": backend})
        self.etcdctl(f"put /coreos.com/network/config '{config}'")

    def start_far(self):
        """Start the other node; returns the address of a bridge there, in its subnet, which answers datagrams."""
        self.sh(
            "systemd-run --unit=far --property=NetworkNamespacePath=/run/netns/far --property=Type=notify"
            f" {FLANNELD} --etcd-endpoints={ETCD} --subnet-file=/run/far/subnet.env --iface=eth0 --guard=off"
        )
        subnet = self.sh(". /run/far/subnet.env; echo $FLANNEL_SUBNET").strip()
        self.sh(
            f"ip -n far link add cni0 type bridge; ip -n far addr add {subnet} dev cni0; ip -n far link set cni0 up"
        )
        address = subnet.partition("/")[0]
        serve = f"python3 /guest/echo.py serve {address}"
        self.sh(f"systemd-run --unit=echo --property=NetworkNamespacePath=/run/netns/far {serve}")
        self.wait_for("ip netns exec far ss --udp --listening --numeric | grep -q 7007")
        return address

    def add_pod(self, name):
        """Wire a pod by the plugin into a namespace called `name`; returns its end on the bridge."""
        self.sh(f"ip netns add {name}")
        told = json.loads(self.call_plugin("ADD", name))
        assert told["ips"]
        return told["interfaces"][1]["name"]

    def delete_pod(self, name):
        self.call_plugin("DEL", name)
        self.sh(f"ip netns del {name}")

    def call_plugin(self, verb, name, plugin="/opt/cni/bin/flannel", container=None):
        """Call the plugin, or another executable, for a namespace and a container, of the same name unless given."""
        environ = (
            f"CNI_CONTAINERID={container or name} CNI_NETNS=/run/netns/{name} CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin"
        )
        return self.sh(f"echo '{_CNI}' | {environ} CNI_COMMAND={verb} {plugin}")

    @contextmanager
    def answered(self, pod, address):
        """Have a pod send datagrams to an address meanwhile, of which each is answered."""
        self.sh(f"systemd-run --unit=asking --property=RemainAfterExit=yes ip netns exec {pod} {answers(address)} --on")
        yield
        self.sh("systemctl kill --signal=TERM asking")
        self.wait_for("systemctl show --property=SubState asking | grep -q -e exited -e failed")
        assert self.show("asking", "Result") == "success", self.log_of("asking")
        self.sh("systemctl stop asking")


def answers(address):
    """Return the command that asks an address, and fails where it does not answer."""
    return f"python3 /guest/echo.py ask {address}"


@pytest.fixture(scope="module")
def guest(tmp_path_factory, package):
    made = GuestNode(tmp_path_factory.mktemp("guest"))
    try:
        made.sh(NETWORK)
        made.install(package)
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def etcd(guest):
    """Where etcd is not there, flanneld waits; afterwards it has what it needs."""
    guest.sh("systemctl start --no-block flanneld")
    guest.wait_for("journalctl -u flanneld | grep -q 'connection refused'")
    assert guest.show("flanneld", "ActiveState") == "activating"
    guest.start_etcd()


@pytest.fixture
def node(guest, etcd):
    """The guest with flanneld as it comes, ready."""
    guest.sh("systemctl start flanneld")
    return guest


@pytest.fixture(scope="module")
def far(guest, etcd):
    """The other node's address."""
    return guest.start_far()


@pytest.fixture
def pod(node, far):
    """The end of a pod's device on the bridge; the pod is the network namespace `pod`, and reaches the other node."""
    node.sh("flannelctl cni install")
    port = node.add_pod("pod")
    node.wait_for(f"ip netns exec pod {answers(far)}")
    yield port
    node.delete_pod("pod")
