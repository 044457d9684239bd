"""CHECK by the installed executable: silent while all stands, and naming what does not."""

import pytest
from pyroute2 import IPRoute

pytestmark = pytest.mark.kernel


@pytest.fixture
def attached(node):
    node.write_env("10.5.0.0/16", "10.5.2.1/24", "fd42::/48", "fd42:0:0:1::1/64")
    pod = node.make_pod()
    result = node.call("ADD", "c1", pod.path)
    return node, pod, result


def change(namespace, kind, *arguments, device="eth0", **more):
    def work():
        with IPRoute() as writer:
            index = writer.link_lookup(ifname=device)[0]
            getattr(writer, kind)(*arguments, **({"oif": index} if kind == "route" else {"index": index}), **more)

    namespace.run(work)


def check(node, pod, result, **more):
    return node.refused("CHECK", "c1", pod.path, node.config(prevResult=result, **more))["msg"]


def test_all_is_as_it_should_be(attached):
    node, pod, result = attached
    assert node.call("CHECK", "c1", pod.path, node.config(prevResult=result)) is None


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0"])
def test_results_of_older_versions_are_understood(node, version):
    pod = node.make_pod()
    result = node.call("ADD", "c1", pod.path, node.config(version))
    node.call("CHECK", "c1", pod.path, node.config(version, prevResult=result))


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.0", "0.3.1"])
def test_the_oldest_versions_have_no_check(node, version):
    assert node.refused("CHECK", "c1", node.make_pod().path, node.config(version))["code"] == 1


def test_a_missing_prev_result_is_an_error(attached):
    node, pod, _ = attached
    assert "prevResult" in node.refused("CHECK", "c1", pod.path)["msg"]


def test_a_lost_address(attached):
    node, pod, result = attached
    change(pod, "addr", "add", address="10.5.2.99", prefixlen=24)
    change(pod, "addr", "del", address="10.5.2.2", prefixlen=24)
    assert check(node, pod, result) == "eth0 has lost its address 10.5.2.2/24"


def test_a_lost_route(attached):
    node, pod, result = attached
    change(pod, "route", "del", dst="10.5.0.0/16")
    assert check(node, pod, result) == "eth0 has lost its route to 10.5.0.0/16"


def test_a_route_through_another_gateway(attached):
    node, pod, result = attached
    change(pod, "route", "replace", dst="0.0.0.0/0", gateway="10.5.2.9")
    assert check(node, pod, result) == "eth0 has lost its route to 0.0.0.0/0"


def test_a_device_that_is_down(attached):
    node, pod, result = attached
    change(pod, "link", "set", state="down")
    assert "eth0 is down" in check(node, pod, result)


def test_another_mac(attached):
    node, pod, result = attached
    change(pod, "link", "set", address="02:00:00:00:00:99")
    assert "eth0 has the MAC 02:00:00:00:00:99" in check(node, pod, result)


def test_a_device_that_is_gone(attached):
    node, pod, result = attached
    change(pod, "link", "del")
    assert "eth0 is gone" in check(node, pod, result)


def test_a_port_that_left_the_bridge(attached):
    node, pod, result = attached
    change(node.host, "link", "set", device=result["interfaces"][1]["name"], master=0)
    assert "no port of the bridge cni0" in check(node, pod, result)


def test_a_port_that_is_down(attached):
    node, pod, result = attached
    near = result["interfaces"][1]["name"]
    change(node.host, "link", "set", device=near, state="down")
    assert f"{near} is down" in check(node, pod, result)


@pytest.mark.parametrize("option", ["hairpinMode", "portIsolation"])
def test_an_option_of_the_port_that_was_changed(attached, option):
    node, pod, result = attached
    near = result["interfaces"][1]["name"]
    attribute, value = {"hairpinMode": ("br_port_mode", 0), "portIsolation": ("br_port_isolated", 1)}[option]

    def set_option():
        with IPRoute() as writer:
            writer.brport(
                "set", index=writer.link_lookup(ifname=near)[0], **{attribute.removeprefix("br_port_"): value}
            )

    node.host.run(set_option)
    assert f"{near} has not the {option}" in check(node, pod, result)


def test_a_bridge_that_is_gone(attached):
    node, pod, result = attached
    change(node.host, "link", "del", device="cni0")
    assert check(node, pod, result) == "the bridge cni0 is gone"


def test_an_address_that_is_not_noted_down(attached):
    node, pod, result = attached
    (node.networks / "10.5.2.2").unlink()
    (node.networks / "fd42:0:0:1::2").unlink()
    assert "no address is noted down" in check(node, pod, result)


def test_a_result_of_another_container(attached):
    node, _, result = attached
    assert "eth0" in check(node, node.make_pod(), result)
