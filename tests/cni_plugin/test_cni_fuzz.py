"""Whatever comes in by environment and standard input, a result or an error object comes out."""

import json
import os
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyroute2 import IPRoute

from cni_plugin import alone
from cni_plugin.alone import serve_alone
from flanneld_py.agent.pod_calls import PodCalls
from flanneld_py.agent.pod_request import Request
from flanneld_py.ctl.cni import install
from flanneld_py.pods import bridge_conf, network_conf

ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/absent",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/absent",
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(
    [
        "cniVersion",
        "name",
        "type",
        "subnetFile",
        "delegate",
        "ipam",
        "runtimeConfig",
        "prevResult",
        "args",
        "cni.dev/attachments",
        "cni.dev/valid-attachments",
    ]
)
INNER_KEYS = st.sampled_from(
    [
        "type",
        "mtu",
        "bridge",
        "vlan",
        "hairpinMode",
        "isGateway",
        "ipMasq",
        "dns",
        "routes",
        "resolvConf",
        "mac",
        "ips",
        "interfaces",
        "ranges",
        "addresses",
        "antiSpoof",
        "args",
        "cni",
        "enabledad",
        "forceAddress",
        "ipMasqBackend",
        "ipRanges",
        "ipam",
        "isDefaultGateway",
        "macspoofchk",
        "name",
        "portIsolation",
        "promiscMode",
        "subnet",
    ]
)
LIKELY = (
    st.booleans()
    | st.integers(-1, 70_000)
    | st.sampled_from(
        ["", "bridge", "host-local", "br1", "/tmp", "02:00:00:00:00:01", "10.5.2.9", "10.5.2.9/24", "..", "/"]
    )
    | st.lists(st.sampled_from(["10.5.2.7", "fd00::1", "x"]), max_size=2)
    | st.lists(st.fixed_dictionaries({"dst": st.sampled_from(["10.9.0.0/16", "0.0.0.0/0", "::/0", "x"])}), max_size=2)
)
PARTS = st.dictionaries(INNER_KEYS, LIKELY | st.dictionaries(INNER_KEYS, LIKELY, max_size=3), max_size=5)
LIKELY_CHANGES = st.dictionaries(st.sampled_from(["delegate", "ipam", "runtimeConfig", "args"]), PARTS, max_size=4)
OBJECTS = st.dictionaries(INNER_KEYS, VALUES, max_size=4)
CHANGES = st.dictionaries(KEYS, VALUES | OBJECTS | st.lists(OBJECTS, max_size=2), max_size=4)
VARIABLES = st.dictionaries(
    st.sampled_from([*ENVIRONMENT, "CNI_ARGS", "CNI_NETNS_OVERRIDE"]),
    st.sampled_from(["", "ADD", "DEL", "CHECK", "GC", "STATUS", "IP=x", "MAC=1;IP=10.5.2.3", "1"])
    | st.text(st.characters(exclude_characters="\0"), max_size=20),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    lines = ("FLANNEL_NETWORK=10.5.0.0/16", "FLANNEL_SUBNET=10.5.2.1/24", "FLANNEL_MTU=1450", "FLANNEL_IPMASQ=true")
    (folder / "subnet.env").write_text("\n".join(lines))
    # Nothing outside this folder is touched, even where the configuration names no folder.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alone, "_READY_PATIENCE", 0)
        patch.setattr(network_conf, "_SUBNET_FILE", str(folder / "subnet.env"))
        patch.setattr(network_conf, "_DATA_DIR", str(folder / "scratch"))
        for module in (bridge_conf, network_conf):
            patch.setattr(module, "DEFAULT_STORE", str(folder / "networks"))
        yield folder


@pytest.fixture(scope="module")
def calls():
    """The daemon's end of a call, with the descriptors that go with one."""
    namespace, root = os.open("/proc/self/ns/net", os.O_RDONLY), os.open("/", os.O_PATH)
    served = PodCalls(list)
    yield served, namespace, root
    served.leave()
    os.close(namespace)
    os.close(root)


def check(status, output):
    if status == 0:
        assert not output or isinstance(json.loads(output), dict)
        return
    assert status == 1
    error = json.loads(output)
    assert isinstance(error["code"], int)
    assert error["code"] > 0
    assert error["msg"]
    assert "unexpected" not in error["msg"], error
    assert error["cniVersion"] == "1.1.0"


@pytest.mark.slow
@given(
    st.sampled_from(["ADD", "DEL", "CHECK", "GC", "STATUS"]),
    VARIABLES,
    st.binary(max_size=30) | CHANGES.map(lambda changes: {"cniVersion": "1.1.0", "name": "n"} | changes),
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_in_process(folder, verb, variables, config):
    stdin = config if isinstance(config, bytes) else json.dumps(config).encode()
    environment = ENVIRONMENT | {"CNI_COMMAND": verb} | variables
    # The kernel keeps bytes that are no text as well.
    variables = {key.encode(): value.encode(errors="surrogatepass") for key, value in environment.items()}
    check(*serve_alone(variables, stdin))


@pytest.mark.slow
@given(
    st.sampled_from(["ADD", "DEL", "CHECK", "GC", "STATUS"]),
    VARIABLES,
    st.sampled_from(["", "/absent"]),
    st.binary(max_size=30) | CHANGES.map(lambda changes: {"cniVersion": "1.1.0", "name": "n"} | changes),
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_in_the_daemon(folder, calls, verb, variables, netns, config):
    stdin = config if isinstance(config, bytes) else json.dumps(config).encode()
    environment = ENVIRONMENT | {"CNI_COMMAND": verb, "CNI_NETNS": netns} | variables
    encoded = {key.encode(): value.encode(errors="surrogatepass") for key, value in environment.items()}
    status, output = calls[0].serve(Request(encoded, stdin, *calls[1:], None))
    if status == 2:
        assert output == b""
    else:
        check(status, output)


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.timeout(180)
@given(VARIABLES, LIKELY_CHANGES, st.sampled_from(["0.2.0", "0.4.0", "1.1.0"]))
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_in_a_namespace_where_an_add_may_succeed(folder, make_namespace, variables, changes, version):
    host, pod = make_namespace(), make_namespace()
    config = {"cniVersion": version, "name": "n"} | changes
    ours = ENVIRONMENT | {"CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0"}
    given_variables = ours | {
        key: value for key, value in variables.items() if key in {"CNI_ARGS", "CNI_NETNS_OVERRIDE"}
    }

    def call(verb, **more):
        environment = given_variables | {"CNI_COMMAND": verb, "CNI_NETNS": pod.path}
        encoded = {key.encode(): value.encode(errors="surrogatepass") for key, value in environment.items()}
        return host.run(serve_alone, encoded, json.dumps(config | more).encode())

    added = call("ADD")
    check(*added)
    if added[0] == 0:
        check(*call("CHECK", prevResult=json.loads(added[1])))
    else:
        assert host.run(veths) == pod.run(veths) == set()
    check(*call("DEL"))
    assert host.run(veths) == pod.run(veths) == set()
    assert not list((folder / "scratch").glob("*")), "the scratch file stays"
    for namespace in (host, pod):
        namespace.close()


def veths():
    with IPRoute() as reader:
        return {found.get_attr("IFLA_IFNAME") for found in reader.get_links(kind="veth")}


def test_nobody_listens(folder):
    install(folder / "bin", folder / "net.d")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [folder / "bin" / "flannel"],
            env={"CNI_COMMAND": "VERSION"},
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")
