"""What a host's own udev, systemd-networkd and NetworkManager do to flannel's devices, with our files and without."""

import json
from contextlib import contextmanager

import pytest

from tests.deploy.guest_node import answers, etcd, far, guest, node, pod
from tests.deploy.test_debian_package import package

pytestmark = [pytest.mark.full, pytest.mark.kernel, pytest.mark.timeout(600)]

__all__ = ["etcd", "far", "guest", "node", "package", "pod"]

LINK, NETWORK = "10-flannel.link", "10-flannel.network"
# As installers write the first, and images of clouds and of Flatcar the second: for every device without another file.
UPLINK = "[Match]\nName=eth0\n\n[Network]\nAddress=172.30.0.11/16\nGateway=172.30.0.1\n"
CATCH_ALL = "[Match]\nName=*\n\n[Network]\nDHCP=ipv4\n"
RANDOM, SET = "1", "3"
"""Whether the kernel has made up a device's MAC, or somebody has set it (NET_ADDR_RANDOM and NET_ADDR_SET)."""


@contextmanager
def masked(node, file):
    """Have a file of the package not be there, as systemd's own programs see it (systemd.network(5))."""
    mask = f"/etc/systemd/network/{file}"
    node.sh(f"ln -s /dev/null {mask}; udevadm control --reload")
    try:
        yield
    finally:
        node.sh(f"rm {mask}; udevadm control --reload")


def read_state(node, pod):
    """Return what must not change: our devices' addresses, the pod's place on the bridge, and routes over them."""
    devices = ("flannel.1", "cni0", pod)
    parts = [f"ip -brief address show dev {device}; ip route show dev {device}" for device in devices]
    return node.sh(f"{';'.join(parts)}; bridge link show dev {pod}")


# udev


def test_udev_leaves_the_tunnels_mac_as_the_other_nodes_were_told(node):
    node.sh("udevadm settle")
    assert f"ID_NET_LINK_FILE=/usr/lib/systemd/network/{LINK}" in node.sh("udevadm info /sys/class/net/flannel.1")
    mac = node.sh("cat /sys/class/net/flannel.1/address").strip()
    assert f'"VtepMAC":"{mac}"' in node.etcdctl("get --prefix /coreos.com/network/subnets/")


def make_device(node):
    """Make a tunnel's device whose MAC is left to the kernel; return how it came by the one that it has in the end."""
    node.sh("ip link add flannel.7 type vxlan id 7 dstport 8477; udevadm settle")
    kind = node.sh("cat /sys/class/net/flannel.7/addr_assign_type").strip()
    node.sh("ip link del flannel.7; udevadm settle")
    return kind


def test_udev_would_change_a_mac_without_our_file(node):
    assert make_device(node) == RANDOM
    with masked(node, LINK):
        assert make_device(node) == SET


# systemd-networkd


@pytest.fixture
def restart_networkd(node):
    """A function that restarts systemd-networkd, which holds the uplink, and returns what it has to do with each."""
    for name, text in (("20-eth0", UPLINK), ("50-all", CATCH_ALL)):
        node.sh(f"cat > /etc/systemd/network/{name}.network <<'END'\n{text}END")

    def restart():
        node.sh("systemctl restart systemd-networkd; /lib/systemd/systemd-networkd-wait-online -i eth0 --timeout=50")
        told = json.loads(node.sh("networkctl --json=short list"))["Interfaces"]
        return {link["Name"]: link["AdministrativeState"] for link in told}

    yield restart
    node.sh("systemctl stop systemd-networkd.socket systemd-networkd; rm /etc/systemd/network/*.network")
    node.sh("ip addr replace 172.30.0.11/16 dev eth0; ip route replace default via 172.30.0.1")


def test_networkd_leaves_our_devices_and_pods_alone(node, pod, far, restart_networkd):
    node.sh("systemctl stop flanneld")  # it would put right what is wrong
    before = read_state(node, pod)
    states = restart_networkd()
    assert states["eth0"] == "configured"
    assert {states[name] for name in ("flannel.1", "cni0", pod)} == {"unmanaged"}
    assert read_state(node, pod) == before
    node.sh(f"ip netns exec pod {answers(far)}")


def test_networkd_would_take_addresses_and_pods_away_without_our_file(node, pod, restart_networkd):
    with masked(node, NETWORK):
        states = restart_networkd()
        assert "unmanaged" not in {states[name] for name in ("flannel.1", "cni0", pod)}
        node.wait_for(f'test -z "$(bridge link show dev {pod})"; ! ip addr show dev cni0 | grep "inet "')


def test_routes_over_the_uplink_come_back_when_networkd_takes_them(node, pod, far, restart_networkd):
    node.set_config(Type="vxlan", DirectRouting=True)
    node.wait_for("ip route show proto 119 | grep 'dev eth0'")
    restart_networkd()
    node.wait_for(f"ip route show proto 119 | grep 'dev eth0' && ip netns exec pod {answers(far)}")
    node.set_config(Type="vxlan")
    node.wait_for("ip route show proto 119 | grep 'dev flannel.1'")


def test_networkd_keeps_routes_over_the_uplink_when_told_as_the_documents_say(node, pod, far, restart_networkd):
    kept = "/etc/systemd/network/20-eth0.network.d/keep.conf"
    foreign = "/etc/systemd/networkd.conf.d/keep.conf"
    node.sh(f"mkdir $(dirname {kept}) $(dirname {foreign})")
    node.sh(f"printf '[Network]\\nKeepConfiguration=yes\\n' > {kept}")
    node.sh(f"printf '[Network]\\nManageForeignRoutes=no\\n' > {foreign}")
    node.set_config(Type="vxlan", DirectRouting=True)
    node.wait_for("ip route show proto 119 | grep 'dev eth0'")
    restart_networkd()
    with node.answered("pod", far):
        restart_networkd()
    node.sh(f"rm -r $(dirname {kept}) $(dirname {foreign})")
    node.set_config(Type="vxlan")
    node.wait_for("ip route show proto 119 | grep 'dev flannel.1'")


# NetworkManager


CONF = "/usr/lib/NetworkManager/conf.d/90-flannel.conf"
# NetworkManager's own rule spares veth devices from it; not every version has that.
SPARING_RULE = "/etc/udev/rules.d/85-nm-unmanaged.rules"


@pytest.fixture
def network_manager(node):
    """A node on which NetworkManager is started by and by."""
    node.sh(f"ln -s /dev/null {SPARING_RULE}; udevadm control --reload")
    yield node
    node.sh(f"systemctl stop NetworkManager; rm {SPARING_RULE}; udevadm control --reload")
    node.sh("ip addr replace 172.30.0.11/16 dev eth0; ip route replace default via 172.30.0.1")


UNMANAGED, MANAGED = "-e", "-v"


def all_are(option, pod):
    """Return the command that fails where NetworkManager does not see all of our devices as said."""
    listed = "nmcli --terse --fields DEVICE,STATE device | tee /dev/stderr"
    return f"{listed} | grep -E '^(cni0|flannel.1|{pod}):' | grep -c {option} ':unmanaged$' | grep -x 3"


def test_network_manager_leaves_our_devices_and_pods_alone(network_manager, pod, far):
    network_manager.sh("systemctl start NetworkManager; nm-online --quiet --wait-for-startup --timeout=50")
    network_manager.wait_for(all_are(UNMANAGED, pod))
    network_manager.sh(f"ip netns exec pod {answers(far)}; systemctl stop flanneld")
    before = read_state(network_manager, pod)
    network_manager.sh("nmcli networking off")
    network_manager.wait_for("! ip addr show dev eth0 | grep 'inet '")
    assert read_state(network_manager, pod) == before
    network_manager.sh("nmcli networking on")


def test_network_manager_would_take_addresses_away_without_our_file(network_manager, pod):
    network_manager.sh(f"mv {CONF} /run; systemctl start NetworkManager")
    network_manager.wait_for(all_are(MANAGED, pod))
    network_manager.sh("systemctl stop flanneld; nmcli networking off")
    network_manager.wait_for("! ip addr show dev cni0 | grep 'inet '")
    network_manager.sh(f"nmcli networking on; mv /run/90-flannel.conf {CONF}")
