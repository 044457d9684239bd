"""DEL by the installed executable, in all the states in which a runtime may call it."""

import json

import pytest
from pyroute2 import IPRoute

pytestmark = pytest.mark.kernel


def names():
    with IPRoute() as reader:
        return {found.get_attr("IFLA_IFNAME") for found in reader.get_links()}


def delete_cleanly(node, pod, container="c1"):
    for _ in range(2):
        assert node.call("DEL", container, pod.path) is None
    assert node.held() == []
    assert not (node.scratch / container).exists()
    assert node.host.run(names) <= {"lo", "cni0"}
    assert pod.run(names) == {"lo"}


def test_del_takes_everything_down_and_may_be_repeated(node):
    pod = node.make_pod()
    node.call("ADD", "c1", pod.path)
    delete_cleanly(node, pod)


def test_before_any_add(node):
    delete_cleanly(node, node.make_pod())


@pytest.mark.parametrize("netns", ["", "/absent/netns"])
def test_with_the_namespace_gone(node, netns):
    pod = node.make_pod()
    node.call("ADD", "c1", pod.path)
    pod.close()
    node.call("DEL", "c1", netns)
    assert node.held() == []
    assert not (node.scratch / "c1").exists()


def test_with_empty_standard_input(node):
    pod = node.make_pod()
    node.call("ADD", "c1", pod.path)
    for stdin in (b"", b"\n"):
        status, output = node.run("DEL", stdin, CNI_CONTAINERID="c1", CNI_NETNS=pod.path, CNI_IFNAME="eth0")
        assert (status, output) == (0, b"")
    assert node.held() == ["10.5.2.2"]


def test_without_subnet_env(node):
    pod = node.make_pod()
    node.call("ADD", "c1", pod.path)
    node.subnet_file.unlink()
    delete_cleanly(node, pod)


def test_without_the_scratch_file(node):
    pod = node.make_pod()
    node.call("ADD", "c1", pod.path)
    (node.scratch / "c1").unlink()
    delete_cleanly(node, pod)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name":"../x","ipam":{}}'])
def test_with_a_broken_scratch_file(node, content):
    pod = node.make_pod()
    node.call("ADD", "c1", pod.path)
    (node.scratch / "c1").write_text(content)
    delete_cleanly(node, pod)


def test_after_an_add_that_was_killed_before_the_device(node):
    pod = node.make_pod()
    node.call("ADD", "c1", pod.path)

    def delete():
        with IPRoute() as writer:
            writer.link("del", ifname="eth0")

    pod.run(delete)
    delete_cleanly(node, pod)


def test_others_stay(node):
    pods = [node.make_pod(), node.make_pod()]
    for index, pod in enumerate(pods):
        node.call("ADD", f"c{index}", pod.path)
    node.call("DEL", "c0", pods[0].path)
    assert node.held() == ["10.5.2.3"]
    assert (node.scratch / "c1").exists()
    assert "eth0" in pods[1].run(names)
    assert len(node.host.run(names)) == 3


def test_the_address_of_a_device_that_cannot_be_deleted_is_kept(node):
    pod = node.make_pod()
    node.call("ADD", "c1", pod.path)
    # The kernel deletes no loopback device.
    (node.networks / "10.5.2.9").write_text("c1\r\nlo")
    error = node.refused("DEL", "c1", pod.path, ifname="lo")
    assert "lo could not be taken down" in error["msg"]
    assert node.held() == ["10.5.2.2", "10.5.2.9"]


def test_the_chains_of_ip_masq_are_taken_down_by_the_address(node):
    program = node.bin / "iptables"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$*" >>"$0.calls"\ncase "$*" in *" -C "*) exit 1;; esac\n')
    program.chmod(0o755)
    calls = node.bin / "iptables.calls"
    pod = node.make_pod()
    config = node.config(delegate={"ipMasq": True})
    node.call("ADD", "c1", pod.path, config, PATH=f"{node.bin}:/usr/bin:/bin")
    assert "-A POSTROUTING -s 10.5.2.2 -j CNI-" in calls.read_text()
    calls.unlink()
    pod.close()
    node.call("DEL", "c1", "/absent", config, PATH=f"{node.bin}:/usr/bin:/bin")
    assert "-D POSTROUTING -s 10.5.2.2 -j CNI-" in calls.read_text()
    assert node.held() == []


def test_what_the_scratch_file_says_counts_not_the_configuration(node):
    pod = node.make_pod()
    node.call("ADD", "c1", pod.path)
    changed = node.config(name="other", ipam={"dataDir": str(node.folder / "elsewhere")})
    node.call("DEL", "c1", pod.path, changed)
    assert node.held() == []
    assert pod.run(names) == {"lo"}


def test_the_scratch_file_of_go_flannels_plugin_is_understood(node):
    pod = node.make_pod()
    node.call("ADD", "c1", pod.path)
    file = node.scratch / "c1"
    # The same keys in another order and with white space, and the address's file as host-local 0.7 wrote it.
    file.write_text(json.dumps(dict(reversed(json.loads(file.read_text()).items())), indent=1))
    (node.networks / "10.5.2.2").write_text("c1")
    delete_cleanly(node, pod)


def test_ids_and_names_cannot_lead_elsewhere(node):
    victim = node.folder / "victim"
    victim.write_text("{}")
    pod = node.make_pod()
    assert node.refused("DEL", "../victim", pod.path)["code"] == 4
    assert node.refused("DEL", "c1", pod.path, node.config(name="../networks"))["code"] == 7
    assert victim.exists()
