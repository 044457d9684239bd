import errno
import os

import pytest
from pyroute2 import IPRoute

from flanneld_py.core.errors import KernelError
from flanneld_py.kernel import link, netns, veth
from flanneld_py.kernel.netlink_socket import NetlinkSocket

pytestmark = pytest.mark.kernel

MAC = bytes.fromhex("02000a050201")
POD_MAC = bytes.fromhex("02000a050202")
NEAR = veth.VethEnd("veth12345678", MAC)
FAR = veth.VethEnd("eth0", POD_MAC)


def read_link(name):
    with IPRoute() as reader:
        return reader.link("get", ifname=name)[0]


def make(namespace, pod, mtu=1450):
    """A pair whose far end is in the pod."""

    def work():
        with NetlinkSocket() as sock:
            request = veth.encode_create(NEAR, FAR, mtu=mtu, far_namespace=pod.fd)
            sock.execute(request, "create the pair")

    namespace.run(work)


def test_both_ends_are_as_wanted_in_their_namespaces(namespace, make_namespace):
    pod = make_namespace()
    make(namespace, pod)
    near = namespace.run(read_link, NEAR.name)
    far = pod.run(read_link, FAR.name)
    assert near.get_attr("IFLA_ADDRESS") == MAC.hex(":")
    assert near.get_attr("IFLA_MASTER") is None
    assert near.get_attr("IFLA_MTU") == 1450
    assert near["flags"] & link.IFF_UP
    assert far.get_attr("IFLA_ADDRESS") == POD_MAC.hex(":")
    assert far.get_attr("IFLA_MTU") == 1450
    assert not far["flags"] & link.IFF_UP
    assert far.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == veth.KIND
    assert far.get_attr("IFLA_LINK") == near["index"]


def test_each_end_has_one_queue_from_the_first(namespace, make_namespace):
    pod = make_namespace()
    make(namespace, pod)
    for found in (namespace.run(read_link, NEAR.name), pod.run(read_link, FAR.name)):
        assert (found.get_attr("IFLA_NUM_TX_QUEUES"), found.get_attr("IFLA_NUM_RX_QUEUES")) == (1, 1)


def test_mtu_0_leaves_the_default(namespace, make_namespace):
    pod = make_namespace()
    make(namespace, pod, mtu=0)
    assert namespace.run(read_link, NEAR.name).get_attr("IFLA_MTU") == 1500
    assert pod.run(read_link, FAR.name).get_attr("IFLA_MTU") == 1500


def test_a_name_that_is_taken_in_the_pod_leaves_nothing(namespace, make_namespace):
    pod = make_namespace()

    def occupy():
        with IPRoute() as writer:
            writer.link("add", ifname=FAR.name, kind="bridge")

    pod.run(occupy)
    with pytest.raises(KernelError) as caught:
        make(namespace, pod)
    assert caught.value.errno == errno.EEXIST

    def names():
        with IPRoute() as reader:
            return {found.get_attr("IFLA_IFNAME") for found in reader.get_links()}

    assert namespace.run(names) == {"lo"}


def test_a_descriptor_of_something_else_is_refused(namespace, make_namespace):
    pod = make_namespace()
    descriptor = os.open("/dev/null", os.O_RDONLY)
    try:
        assert not netns.is_network_namespace(descriptor)
        assert netns.is_network_namespace(pod.fd)
    finally:
        os.close(descriptor)
