"""The same call to the genuine plugins and to this one, on nodes that are alike: the same is said and done.

Genuine are flannel 0.9.1, which speaks versions up to 0.4.0, and bridge and host-local 1.6.2 below it; what is said in
later versions, bridge is asked by itself, with the delegate's configuration that this plugin has completed.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from flanneld_py.pods.versions import SUPPORTED
from tests.cni_plugin.conftest import Node

PEERS = Path(__file__).parents[2] / ".cache" / "peers" / "cni"
CONTAINER = "c1"
IFF_UP, IFF_PROMISC = 0x1, 0x100
OLDER = [version for version in SUPPORTED if version < "1"]

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.full,
    pytest.mark.skipif(
        not (PEERS / "bridge").exists(), reason=f"{PEERS} has no genuine plugins: make peers builds them (needs go)"
    ),
]

DEFAULT_ROUTE = {"dst": "0.0.0.0/0", "gw": "10.5.2.1"}
FAR_ROUTES = [{"dst": "192.168.0.0/16"}, {"dst": "172.16.0.0/12", "gw": "10.5.2.9"}]
DNS = {"nameservers": ["10.5.2.1"], "domain": "a.b", "search": ["b"], "options": ["ndots:5"]}

CASES = {
    "nothing": {},
    "kube-flannel's": {"delegate": {"hairpinMode": True, "isDefaultGateway": True}},
    "no gateway": {"delegate": {"isGateway": False}},
    "a default gateway is a gateway": {"delegate": {"isGateway": False, "isDefaultGateway": True}},
    "promiscuous": {"delegate": {"promiscMode": True}},
    "mtu": {"delegate": {"mtu": 1300}},
    "mtu 0": {"delegate": {"mtu": 0}},
    "bridge": {"delegate": {"bridge": "br7"}},
    "ipMasq": {"delegate": {"ipMasq": True}},
    "forceAddress": {"delegate": {"forceAddress": True}},
    "enabledad": {"delegate": {"enabledad": True}},
    "dns": {"delegate": {"dns": DNS}},
    "dns that is empty": {"delegate": {"dns": {}}},
    "routes": {"ipam": {"routes": FAR_ROUTES}},
    "a default route of the user's": {"ipam": {"routes": [DEFAULT_ROUTE]}, "delegate": {"isDefaultGateway": True}},
    "mac by runtimeConfig": {"runtimeConfig": {"mac": "02:00:00:00:00:01"}},
    "mac by args": {"delegate": {"args": {"cni": {"mac": "02:00:00:00:00:02"}}}},
    "mac by CNI_ARGS": {"CNI_ARGS": "IgnoreUnknown=1;MAC=02:00:00:00:00:03;K8S_POD_NAME=p"},
    "ip by runtimeConfig": {"runtimeConfig": {"ips": ["10.5.2.77"]}},
    "ip with a length by runtimeConfig": {"runtimeConfig": {"ips": ["10.5.2.77/24"]}},
    "ip by args": {"delegate": {"args": {"cni": {"ips": ["10.5.2.78"]}}}},
    "ip by CNI_ARGS": {"CNI_ARGS": "IgnoreUnknown=1;IP=10.5.2.79"},
    "portMappings, which are portmap's": {"runtimeConfig": {"portMappings": [{"hostPort": 80}]}},
    "an unknown key": {"delegate": {"noSuchKey": {"a": [1, 2]}}},
    "ipRanges by runtimeConfig": {"runtimeConfig": {"ipRanges": [[{"subnet": "fd99::/64"}]]}},
    "a subnet beside the lease's": {"ipam": {"subnet": "fd99::/64", "rangeStart": "fd99::9"}},
    "static addresses": {"ipam": {"type": "static", "addresses": [{"address": "10.5.2.50/24"}]}},
    "another type": {"delegate": {"type": "ptp"}},
    "ranges, which the lease replaces": {"ipam": {"ranges": [[{"subnet": "10.99.0.0/24"}]]}},
}
REFUSED = {
    "ip of another subnet": {"runtimeConfig": {"ips": ["10.6.2.77"]}},
    "ip that is the gateway's": {"runtimeConfig": {"ips": ["10.5.2.1"]}},
    "ip that is the broadcast's": {"runtimeConfig": {"ips": ["10.5.2.255"]}},
    "ip that is none": {"runtimeConfig": {"ips": ["10.5.2"]}},
    "mac that is none": {"runtimeConfig": {"mac": "02:00"}},
    "hairpin and promiscuous": {"delegate": {"hairpinMode": True, "promiscMode": True}},
    "a name in the delegate": {"delegate": {"name": "n"}},
    "ipam in the delegate": {"delegate": {"ipam": {}}},
    "a type that is no text": {"delegate": {"type": 1}},
    "mtu that is no number": {"delegate": {"mtu": "1300"}},
    "routes that are none": {"ipam": {"routes": [{"dst": "here"}]}},
}
DUAL_STACK = {
    "both families": {},
    "both by default": {"delegate": {"isDefaultGateway": True}},
    "both masqueraded": {"delegate": {"ipMasq": True}},
    "ips of both": {"runtimeConfig": {"ips": ["10.5.2.77", "fd42:0:0:1::77"]}},
    "routes of both": {"ipam": {"routes": [{"dst": "fd99::/48"}, {"dst": "::/0", "gw": "fd42:0:0:1::1"}]}},
}


@pytest.fixture
def nodes(make_namespace, tmp_path):
    """A node for this plugin and one for the genuine ones."""
    made = []
    for name in ("here", "genuine"):
        folder = tmp_path / name
        folder.mkdir()
        made.append(Node(make_namespace(), make_namespace, folder))
    return made


class Call:
    """A container on a node, and what is said and done for it."""

    def __init__(self, node, case, version):
        self.node = node
        self.pod = node.make_pod()
        case = dict(case)
        self.args = case.pop("CNI_ARGS", "IgnoreUnknown=1")
        self.ipam = {"dataDir": str(node.networks.parent)} | case.pop("ipam", {})
        self.config = node.config(version, **({"delegate": {}} | case), ipam=self.ipam)

    def execute(self, executable, verb, config):
        environment = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": CONTAINER,
            "CNI_NETNS": self.pod.path,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(PEERS),
            "CNI_ARGS": self.args,
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        }
        stdin = json.dumps(config).encode()
        done = self.node.host.run(
            lambda: subprocess.run([executable], input=stdin, env=environment, capture_output=True, check=False)
        )
        return done.returncode, done.stdout.decode()

    def here(self, verb):
        return self.execute(self.node.executable, verb, self.config)

    def genuine(self, verb):
        return self.execute(PEERS / "flannel", verb, self.config)

    def genuine_bridge(self, verb, kept):
        """Call bridge by itself, with what the other node's plugin has kept, and keep that as well."""
        text = kept.replace(str(self.node.folder.with_name("here")), str(self.node.folder))
        scratch = self.node.scratch / CONTAINER
        scratch.parent.mkdir(exist_ok=True)
        if verb == "ADD":
            scratch.write_text(text)
        else:
            scratch.unlink()
        return self.execute(PEERS / "bridge", verb, json.loads(text))

    def leveled(self, text):
        """Take out what differs from node to node: folders, namespaces, and names and MACs that are random."""
        text = text.replace(str(self.node.folder), "FOLDER").replace(self.pod.path, "NETNS")
        text = re.sub(r"veth[0-9a-f]{8}", "VETH", text)
        asked = set(re.findall("02:00:00:00:00:0[1-9]", json.dumps(self.config) + self.args))
        return re.sub(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", lambda mac: mac[0] if mac[0] in asked else "MAC", text)

    def result(self, output):
        """Return a result, leveled; without mtu, which the genuine ones do not tell."""
        found = json.loads(self.leveled(output))
        for interface in found.get("interfaces", ()):
            interface.pop("mtu", None)
        return found

    def state(self):
        """Return all that is in the kernel and on the disk, leveled."""
        store, scratch = (
            {file.name: json.loads(text) if text.startswith("{") else text for file, text in read_files(folder)}
            for folder in (self.node.networks, self.node.scratch)
        )
        store.pop("boot_id", None)
        told = {
            "host": self.node.host.run(read_kernel),
            "pod": self.pod.run(read_kernel),
            "rules": {program: self.node.host.run(read_rules, program) for program in ("iptables", "ip6tables")},
            "store": store,
            "scratch": scratch,
        }
        return json.loads(self.leveled(json.dumps(told)))


def read_files(folder):
    return [(file, file.read_text()) for file in sorted(folder.iterdir())] if folder.exists() else []


def read_rules(program):
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is None:
        return []
    done = subprocess.run([path, "-w", "-t", "nat", "-S"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def read_sysctl(name):
    path = Path("/proc/sys/net") / name
    return path.read_text().strip() if path.exists() else None


def read_kernel():
    with IPRoute() as route:
        links = list(route.get_links())
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in links}
        return {
            "links": {link.get_attr("IFLA_IFNAME"): describe_link(link) for link in links},
            "addresses": sorted(
                (
                    f"{names[found['index']]} {found.get_attr('IFA_ADDRESS')}/{found['prefixlen']}"
                    for found in route.get_addr()
                    if not found.get_attr("IFA_ADDRESS").startswith("fe80")
                ),
            ),
            "routes": sorted(
                (describe_route(found, names) for found in route.get_routes(table=254) if is_telling(found)),
            ),
            "forwarding": [read_sysctl("ipv4/ip_forward"), read_sysctl("ipv6/conf/all/forwarding")],
        }


def is_telling(route):
    return not (route.get_attr("RTA_DST") or "").startswith("fe80")


def describe_route(found, names):
    gateway, metric = found.get_attr("RTA_GATEWAY"), found.get_attr("RTA_PRIORITY")
    device, scope = names[found.get_attr("RTA_OIF")], found["scope"]
    return f"{found.get_attr('RTA_DST')}/{found['dst_len']} via {gateway} dev {device} {metric} {scope}"


def describe_link(link):
    name = link.get_attr("IFLA_IFNAME")
    info = link.get_attr("IFLA_LINKINFO")
    port = info.get_attr("IFLA_INFO_SLAVE_DATA") if info else None
    return {
        "kind": info.get_attr("IFLA_INFO_KIND") if info else None,
        "mac": link.get_attr("IFLA_ADDRESS"),
        "mtu": link.get_attr("IFLA_MTU"),
        "flags": link["flags"] & (IFF_UP | IFF_PROMISC),
        "hairpin": port.get_attr("IFLA_BRPORT_MODE") if port else None,
        "isolated": port.get_attr("IFLA_BRPORT_ISOLATED") if port else None,
        "sysctls": {
            key: read_sysctl(f"{key.partition('/')[0]}/conf/{name}/{key.partition('/')[2]}")
            for key in ("ipv4/arp_notify", "ipv6/accept_dad", "ipv6/disable_ipv6")
        },
    }


def lines(state, place=""):
    """Return a state as lines, each of which says its place."""
    match state:
        case dict() | list() if state:
            items = state.items() if isinstance(state, dict) else enumerate(state)
            return [line for key, value in items for line in lines(value, f"{place}/{key}")]
        case _:
            return [f"{place} {state}"]


def compare(calls, said):
    """Compare two answers, and what stands after them."""
    (here, genuine), ((status, output), (genuine_status, genuine_output)) = calls, said
    assert status == genuine_status == 0, (output, genuine_output)
    assert bool(output) == bool(genuine_output)
    if output:
        assert here.result(output) == genuine.result(genuine_output)
    ours, theirs = (set(lines(call.state())) for call in calls)
    differences = [f"here: {line}" for line in ours - theirs] + [f"genuine: {line}" for line in theirs - ours]
    assert not differences, "\n".join(sorted(differences))


def go_through(nodes, case, version):
    here, genuine = calls = [Call(node, case, version) for node in nodes]
    compare(calls, (here.here("ADD"), genuine.genuine("ADD")))
    compare(calls, (here.here("DEL"), genuine.genuine("DEL")))


@pytest.mark.parametrize("case", CASES)
def test_options(nodes, case):
    go_through(nodes, CASES[case], "0.4.0")


@pytest.mark.parametrize("case", REFUSED)
def test_what_both_refuse(nodes, case):
    # The genuine ones leave a bridge, a device or a file behind, and their DEL does not take them all away.
    here, genuine = (Call(node, REFUSED[case], "0.4.0") for node in nodes)
    before = here.state()
    for status, output in (here.here("ADD"), genuine.genuine("ADD")):
        assert (status, bool(json.loads(output)["msg"])) == (1, True)
    assert here.state() == before


@pytest.mark.parametrize("case", DUAL_STACK)
def test_options_of_both_families(nodes, case):
    for node in nodes:
        node.write_env("10.5.0.0/16", "10.5.2.1/24", "fd42::/48", "fd42:0:0:1::1/64")
    go_through(nodes, DUAL_STACK[case], "0.4.0")


@pytest.mark.parametrize("version", OLDER)
def test_older_versions(nodes, version):
    go_through(nodes, CASES["kube-flannel's"] | CASES["routes"], version)


@pytest.mark.parametrize("version", sorted(set(SUPPORTED) - set(OLDER)))
@pytest.mark.parametrize("case", ["kube-flannel's", "routes", "dns", "ipMasq"])
def test_later_versions(nodes, version, case):
    here, genuine = calls = [Call(node, CASES[case], version) for node in nodes]
    said = here.here("ADD")
    kept = (here.node.scratch / CONTAINER).read_text()
    compare(calls, (said, genuine.genuine_bridge("ADD", kept)))
    here.config["prevResult"] = json.loads(said[1])
    assert here.here("CHECK") == (0, "")
    compare(calls, (here.here("DEL"), genuine.genuine_bridge("DEL", kept)))
