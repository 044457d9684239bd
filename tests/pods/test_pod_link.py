import threading

import pytest
from pyroute2 import IPRoute

from flanneld_py.kernel.netlink_socket import NetlinkSocket
from flanneld_py.pods import pod_link
from flanneld_py.pods.bridge import ensure_bridge
from flanneld_py.pods.bridge_conf import parse_bridge_conf
from flanneld_py.pods.errors import CniError
from flanneld_py.pods.label import Label

LABEL = Label("n", "c1", "eth0")

pytestmark = pytest.mark.kernel


@pytest.fixture
def port(namespace, make_namespace):
    """The name of a port whose other end, in the pod, is still down."""
    conf = parse_bridge_conf({"name": "n", "ipam": {"type": "host-local", "ranges": []}}, {})
    pod = make_namespace()

    def set_up():
        with NetlinkSocket() as sock:
            name = pod_link.create_pair(sock, conf, pod.fd, LABEL)
            pod_link.connect(sock, conf, ensure_bridge(sock, conf)[0], name)
            return name

    return namespace.run(set_up), pod


def wait(port):
    with NetlinkSocket() as sock:
        pod_link.wait_until_forwarding(sock, port)


def test_waits_until_the_bridge_forwards_to_the_port(namespace, port, monkeypatch):
    name, pod = port
    looked = threading.Event()
    real = pod_link.bridges.read_port

    def read_port(sock, wanted):
        found = real(sock, wanted)
        if not found.is_forwarding:
            looked.set()
        return found

    monkeypatch.setattr(pod_link.bridges, "read_port", read_port)
    waiting = threading.Thread(target=namespace.run, args=(wait, name))
    waiting.start()
    assert looked.wait(20)

    def bring_up():
        with IPRoute() as writer:
            writer.link("set", ifname="eth0", state="up")

    pod.run(bring_up)
    waiting.join()
    with namespace.run(NetlinkSocket) as sock:
        assert real(sock, name).is_forwarding


def test_gives_up_with_a_word_on_what_may_be_wrong(namespace, port, monkeypatch):
    monkeypatch.setattr(pod_link, "_PORT_WAITS", (0.0, 0.0))
    with pytest.raises(CniError, match="does not forward"):
        namespace.run(wait, port[0])


def test_deleting_what_is_not_there_is_no_error(make_namespace):
    pod_link.delete_device(make_namespace().fd, "eth0")
