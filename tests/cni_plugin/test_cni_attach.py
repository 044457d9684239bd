"""ADD by the installed executable; what it did is read by pyroute2."""

import json
import socket
import stat
import subprocess
from ipaddress import ip_interface
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from flanneld_py.pods.versions import SUPPORTED
from tests.host import wait_until

pytestmark = pytest.mark.kernel

AF = {4: socket.AF_INET, 6: socket.AF_INET6}


def links():
    with IPRoute() as reader:
        return {found.get_attr("IFLA_IFNAME"): found for found in reader.get_links()}


def addresses(name):
    with IPRoute() as reader:
        index = reader.link_lookup(ifname=name)[0]
        return {
            f"{found.get_attr('IFA_ADDRESS')}/{found['prefixlen']}"
            for found in reader.get_addr(index=index)
            if found["scope"] == 0
        }


def routes(family=4):
    with IPRoute() as reader:
        return {
            (f"{found.get_attr('RTA_DST') or 'default'}/{found['dst_len']}", found.get_attr("RTA_GATEWAY"))
            for found in reader.get_routes(family=AF[family], table=254)
            if found["proto"] != 2 and found["type"] == 1
        }


def exchange(node, receiver, sender, address):
    """Send a datagram from one pod to another and return what arrives, and from whom."""
    family = AF[ip_interface(address).version]

    def listen():
        listening = socket.socket(family, socket.SOCK_DGRAM)
        listening.bind((address, 9999))
        listening.settimeout(20)
        return listening

    def send():
        with socket.socket(family, socket.SOCK_DGRAM) as sending:
            sending.sendto(b"hello", (address, 9999))

    with receiver.run(listen) as listening:
        sender.run(send)
        data, source = listening.recvfrom(100)
        return data, source[0]


def test_a_pod_gets_what_the_result_says(node):
    pod = node.make_pod()
    result = node.call("ADD", "c1", pod.path)
    bridge, near, far = result["interfaces"]
    assert result["ips"] == [{"interface": 2, "address": "10.5.2.2/24", "gateway": "10.5.2.1"}]
    assert result["routes"] == [{"dst": "10.5.0.0/16"}, {"dst": "0.0.0.0/0", "gw": "10.5.2.1"}]

    host = node.host.run(links)
    assert set(host) == {"lo", "cni0", near["name"]}
    assert bridge == {"name": "cni0", "mac": host["cni0"].get_attr("IFLA_ADDRESS"), "mtu": 1450}
    assert near["mac"] == host[near["name"]].get_attr("IFLA_ADDRESS")
    # The kernel notices in its own time that the bridge has a carrier now; packets pass already.
    wait_until(lambda: node.host.run(links)["cni0"].get_attr("IFLA_OPERSTATE") == "UP")
    assert host[near["name"]].get_attr("IFLA_MASTER") == host["cni0"]["index"]
    port = host[near["name"]].get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA")
    assert port.get_attr("IFLA_BRPORT_MODE") == 1
    assert node.host.run(addresses, "cni0") == {"10.5.2.1/24"}

    inside = pod.run(links)["eth0"]
    assert far == {"name": "eth0", "mac": inside.get_attr("IFLA_ADDRESS"), "mtu": 1450, "sandbox": pod.path}
    assert inside.get_attr("IFLA_MTU") == 1450
    assert inside["flags"] & 1
    assert pod.run(addresses, "eth0") == {"10.5.2.2/24"}
    assert pod.run(routes) == {("10.5.0.0/16", "10.5.2.1"), ("default/0", "10.5.2.1")}
    assert node.host.run(Path("/proc/sys/net/ipv4/ip_forward").read_text) == "1\n"


def test_the_name_of_the_hosts_end_has_a_fixed_length(node):
    result = node.call("ADD", "c1", node.make_pod().path)
    name = result["interfaces"][1]["name"]
    assert name.startswith("veth")
    assert len(bytes.fromhex(name.removeprefix("veth"))) == 4


def test_two_families_are_usable_at_once(node):
    node.write_env("10.5.0.0/16", "10.5.2.1/24", "fd42::/48", "fd42:0:0:1::1/64", mtu=1430)
    pods = [node.make_pod(), node.make_pod()]
    results = [node.call("ADD", f"c{index}", pod.path) for index, pod in enumerate(pods)]
    assert [entry["address"] for entry in results[1]["ips"]] == ["10.5.2.3/24", "fd42:0:0:1::3/64"]
    assert node.host.run(addresses, "cni0") == {"10.5.2.1/24", "fd42:0:0:1::1/64"}
    assert pods[1].run(addresses, "eth0") == {"10.5.2.3/24", "fd42:0:0:1::3/64"}
    assert pods[1].run(routes, 6) == {("fd42::/48", "fd42:0:0:1::1"), ("default/0", "fd42:0:0:1::1")}
    for address in ("10.5.2.2", "fd42:0:0:1::2"):
        data, source = exchange(node, pods[0], pods[1], address)
        assert data == b"hello"
        assert source in {"10.5.2.3", "fd42:0:0:1::3"}
    assert node.host.run(Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text) == "1\n"
    assert node.host.run(Path("/proc/sys/net/ipv6/conf/cni0/accept_ra").read_text) == "0\n"
    assert pods[1].run(Path("/proc/sys/net/ipv6/conf/eth0/accept_ra").read_text) == "0\n"


def test_duplicates_are_looked_for_where_that_is_asked_for(lone_node):
    lone_node.write_env("", "", "fd42::/48", "fd42:0:0:1::1/64")
    pod = lone_node.make_pod()
    lone_node.call("ADD", "c1", pod.path, lone_node.config(delegate={"enabledad": True}))

    def flags():
        with IPRoute() as reader:
            index = reader.link_lookup(ifname="eth0")[0]
            return {
                found.get_attr("IFA_ADDRESS"): found.get_attr("IFA_FLAGS") for found in reader.get_addr(index=index)
            }

    assert pod.run(flags)["fd42:0:0:1::2"] == 0x80  # permanent, and neither tentative nor excepted


def test_what_the_arguments_of_the_configuration_ask_for(node):
    delegate = {"args": {"cni": {"mac": "02:00:00:00:00:78", "ips": ["10.5.2.88"]}}}
    pod = node.make_pod()
    result = node.call("ADD", "c1", pod.path, node.config(delegate=delegate))
    assert pod.run(links)["eth0"].get_attr("IFLA_ADDRESS") == "02:00:00:00:00:78"
    assert result["ips"][0]["address"] == "10.5.2.88/24"


def test_ipv6_alone(node):
    node.write_env("", "", "fd42::/48", "fd42:0:0:1::1/64")
    pod = node.make_pod()
    result = node.call("ADD", "c1", pod.path)
    assert [entry["address"] for entry in result["ips"]] == ["fd42:0:0:1::2/64"]
    assert pod.run(addresses, "eth0") == {"fd42:0:0:1::2/64"}


def test_pods_reach_each_other_and_the_bridge(node):
    pods = [node.make_pod() for _ in range(3)]
    for index, pod in enumerate(pods):
        node.call("ADD", f"c{index}", pod.path)
    assert exchange(node, pods[0], pods[2], "10.5.2.2") == (b"hello", "10.5.2.4")
    assert exchange(node, node.host, pods[1], "10.5.2.1") == (b"hello", "10.5.2.3")
    assert exchange(node, pods[1], node.host, "10.5.2.3") == (b"hello", "10.5.2.1")


def test_a_pod_reaches_itself_through_the_bridge_in_hairpin_mode_only(node):
    result = node.call("ADD", "c1", node.make_pod().path, node.config(delegate={"hairpinMode": False}))
    port = node.host.run(links)[result["interfaces"][1]["name"]].get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA")
    assert port.get_attr("IFLA_BRPORT_MODE") == 0
    assert port.get_attr("IFLA_BRPORT_ISOLATED") == 0


def test_the_options_of_the_delegate(node):
    delegate = {
        "bridge": "br7",
        "mtu": 1300,
        "promiscMode": True,
        "portIsolation": True,
        "isGateway": False,
        "dns": {"nameservers": ["10.96.0.10"]},
    }
    pod = node.make_pod()
    config = node.config(delegate=delegate, runtimeConfig={"mac": "02:00:00:00:00:77", "ips": ["10.5.2.99"]})
    result = node.call("ADD", "c1", pod.path, config)
    host = node.host.run(links)
    assert host["br7"].get_attr("IFLA_PROMISCUITY") == 1
    assert host["br7"].get_attr("IFLA_MTU") == 1300
    assert node.host.run(addresses, "br7") == set()
    port = host[result["interfaces"][1]["name"]].get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA")
    assert port.get_attr("IFLA_BRPORT_ISOLATED") == 1
    assert pod.run(links)["eth0"].get_attr("IFLA_ADDRESS") == result["interfaces"][2]["mac"] == "02:00:00:00:00:77"
    assert pod.run(addresses, "eth0") == {"10.5.2.99/24"}
    assert result["dns"] == {"nameservers": ["10.96.0.10"]}


def test_the_routes_of_the_user(node):
    ipam = {
        "dataDir": str(node.networks.parent),
        "routes": [{"dst": "192.168.0.0/16"}, {"dst": "0.0.0.0/0", "gw": "10.5.2.7"}, {"dst": "10.5.0.0/16"}],
    }
    pod = node.make_pod()
    result = node.call("ADD", "c1", pod.path, node.config(ipam=ipam))
    assert result["routes"] == [*ipam["routes"], {"dst": "10.5.0.0/16"}]
    assert pod.run(routes) == {
        ("192.168.0.0/16", "10.5.2.1"),
        ("default/0", "10.5.2.7"),
        ("10.5.0.0/16", "10.5.2.1"),
    }


def test_resolv_conf_gives_the_dns(node):
    file = node.folder / "resolv.conf"
    file.write_text("nameserver 10.96.0.10\noptions ndots:5\n")
    ipam = {"dataDir": str(node.networks.parent), "resolvConf": str(file)}
    result = node.call("ADD", "c1", node.make_pod().path, node.config(ipam=ipam))
    assert result["dns"] == {"nameservers": ["10.96.0.10"], "options": ["ndots:5"]}
    ipam["resolvConf"] = str(node.folder / "absent")
    assert "resolvConf" in node.refused("ADD", "c2", node.make_pod().path, node.config(ipam=ipam))["msg"]
    assert node.held() == ["10.5.2.2"]


@pytest.mark.parametrize("version", SUPPORTED)
def test_each_version_is_answered_in_its_own_format(node, version):
    result = node.call("ADD", "c1", node.make_pod().path, node.config(version))
    assert result["cniVersion"] == version
    if version in {"0.1.0", "0.2.0"}:
        assert result["ip4"]["ip"] == "10.5.2.2/24"
        return
    assert ("version" in result["ips"][0]) == version.startswith("0.")
    assert ("mtu" in result["interfaces"][0]) == (version == "1.1.0")


def test_the_scratch_file_is_what_go_flannels_plugin_needs(node):
    node.call("ADD", "c1", node.make_pod().path, node.config(delegate={}))
    file = node.scratch / "c1"
    assert file.read_text() == json.dumps(
        {
            "cniVersion": "1.1.0",
            "ipMasq": False,
            "ipam": {
                "dataDir": str(node.networks.parent),
                "ranges": [[{"subnet": "10.5.2.0/24"}]],
                "routes": [{"dst": "10.5.0.0/16"}],
                "type": "host-local",
            },
            "isGateway": True,
            "mtu": 1450,
            "name": "cbr0",
            "type": "bridge",
        },
        separators=(",", ":"),
    )
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(node.scratch.stat().st_mode) == 0o700


def test_a_repeated_add_is_an_error_and_changes_nothing(node):
    pod = node.make_pod()
    node.call("ADD", "c1", pod.path)
    before = (
        pod.run(links)["eth0"]["index"],
        node.held(),
        (node.scratch / "c1").read_bytes(),
        set(node.host.run(links)),
    )
    error = node.refused("ADD", "c1", pod.path, node.config(delegate={"mtu": 1300}))
    assert "has been added already" in error["msg"]
    after = (
        pod.run(links)["eth0"]["index"],
        node.held(),
        (node.scratch / "c1").read_bytes(),
        set(node.host.run(links)),
    )
    assert after == before


def test_a_container_may_have_two_devices(node):
    pod = node.make_pod()
    node.call("ADD", "c1", pod.path)
    node.call("ADD", "c1", pod.path, node.config(delegate={}), ifname="net1")
    assert node.held() == ["10.5.2.2", "10.5.2.3"]
    node.call("DEL", "c1", pod.path, ifname="net1")
    assert node.held() == ["10.5.2.2"]
    node.call("DEL", "c1", pod.path)
    assert node.held() == []
    assert set(pod.run(links)) == {"lo"}


def test_a_device_that_is_there_already_stays_and_nothing_else(node):
    pod = node.make_pod()

    def occupy():
        with IPRoute() as writer:
            writer.link("add", ifname="eth0", kind="bridge")

    pod.run(occupy)
    error = node.refused("ADD", "c1", pod.path)
    assert "device eth0 already" in error["msg"]
    assert node.held() == []
    assert not (node.scratch / "c1").exists()
    assert set(node.host.run(links)) == {"lo", "cni0"}
    node.call("DEL", "c1", pod.path)
    assert "eth0" in pod.run(links)


def test_a_failure_after_the_device_was_made_takes_it_all_back(node):
    # The gateway of the route is on no link of the pod, so the kernel refuses the route.
    ipam = {"dataDir": str(node.networks.parent), "routes": [{"dst": "1.2.3.0/24", "gw": "172.16.0.1"}]}
    pod = node.make_pod()
    error = node.refused("ADD", "c1", pod.path, node.config(ipam=ipam))
    assert "1.2.3.0/24" in error["msg"]
    assert set(pod.run(links)) == {"lo"}
    assert set(node.host.run(links)) == {"lo", "cni0"}
    assert node.held() == []
    assert not (node.scratch / "c1").exists()


def test_ip_masq_without_iptables_is_refused_with_what_helps(node):
    node.write_env("10.5.0.0/16", "10.5.2.1/24", ip_masq=False)
    pod = node.make_pod()
    node.host.run(hide_iptables)
    error = node.refused("ADD", "c1", pod.path)
    assert "iptables" in error["msg"]
    assert '"ipMasq": false' in error["details"]
    assert set(pod.run(links)) == {"lo"}
    assert node.held() == []


def hide_iptables():
    if any((Path(folder) / "iptables").exists() for folder in ("/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin")):
        pytest.skip("iptables is installed here")


def test_the_subnet_is_exhausted(node):
    node.write_env("10.5.0.0/16", "10.5.2.1/30")
    node.call("ADD", "c1", node.make_pod().path)
    error = node.refused("ADD", "c2", node.make_pod().path)
    assert error["code"] == 50
    assert "10.5.2.0/30" in error["msg"]
    assert not (node.scratch / "c2").exists()


def test_twenty_at_once(node):
    pods = [node.make_pod() for _ in range(20)]

    def start(index, verb):
        environment = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": f"c{index}",
            "CNI_NETNS": pods[index].path,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(node.bin),
        }
        process = subprocess.Popen([node.executable], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        process.stdin.write(json.dumps(node.config()).encode())
        process.stdin.close()
        return process

    def all_at_once(verb):
        processes = [start(index, verb) for index in range(len(pods))]
        outputs = [process.stdout.read() for process in processes]
        assert [process.wait() for process in processes] == [0] * len(pods), outputs
        for process in processes:
            process.stdout.close()
        return outputs

    results = [json.loads(output) for output in node.host.run(all_at_once, "ADD")]
    assert len({result["ips"][0]["address"] for result in results}) == 20
    assert {result["interfaces"][0]["mac"] for result in results} == {results[0]["interfaces"][0]["mac"]}
    last = results[-1]["ips"][0]["address"].split("/")[0]
    assert exchange(node, pods[-1], pods[0], last)[0] == b"hello"
    node.host.run(all_at_once, "DEL")
    node.settle()
    assert node.held() == []
    assert set(node.host.run(links)) == {"lo", "cni0"}


class TestBridge:
    """What is there of the bridge before the ADD."""

    @staticmethod
    def make(name="cni0", *addresses_):
        with IPRoute() as writer:
            writer.link("add", ifname=name, kind="bridge", state="up")
            index = writer.link_lookup(ifname=name)[0]
            for text in addresses_:
                address = ip_interface(text)
                writer.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)

    def test_another_plugins_bridge_is_taken_over_and_keeps_its_mac(self, node):
        node.host.run(self.make)
        mac = node.host.run(links)["cni0"].get_attr("IFLA_ADDRESS")
        for index in range(3):
            node.call("ADD", f"c{index}", node.make_pod().path)
        assert node.host.run(links)["cni0"].get_attr("IFLA_ADDRESS") == mac
        assert node.host.run(addresses, "cni0") == {"10.5.2.1/24"}

    def test_an_old_address_is_replaced_while_no_pod_uses_it(self, node):
        node.host.run(self.make, "cni0", "10.5.9.1/24")
        node.call("ADD", "c1", node.make_pod().path)
        assert node.host.run(addresses, "cni0") == {"10.5.2.1/24"}

    def test_an_old_address_that_pods_may_use_is_left_with_a_word_on_what_helps(self, node):
        node.call("ADD", "c1", node.make_pod().path)
        node.write_env("10.5.0.0/16", "10.5.3.1/24")
        error = node.refused("ADD", "c2", node.make_pod().path)
        assert "10.5.2.1/24" in error["msg"]
        assert "ip link delete cni0" in error["details"]
        assert node.host.run(addresses, "cni0") == {"10.5.2.1/24"}
        node.call("ADD", "c2", node.make_pod().path, node.config(delegate={"forceAddress": True}))
        assert node.host.run(addresses, "cni0") == {"10.5.3.1/24"}

    def test_a_second_ipv6_subnet_stands_beside_the_first(self, node):
        node.host.run(self.make, "cni0", "fd99::1/64")
        node.write_env("", "", "fd42::/48", "fd42:0:0:1::1/64")
        node.call("ADD", "c1", node.make_pod().path)
        assert node.host.run(addresses, "cni0") == {"fd42:0:0:1::1/64", "fd99::1/64"}

    def test_another_device_of_this_name_is_refused(self, node):
        def make_veth():
            with IPRoute() as writer:
                writer.link("add", ifname="cni0", kind="veth", peer="other")

        node.host.run(make_veth)
        assert "cni0 is no bridge" in node.refused("ADD", "c1", node.make_pod().path)["msg"]
        assert node.held() == []
