import errno
import os
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from flanneld_py.core.errors import KernelError
from flanneld_py.kernel import link, netns
from flanneld_py.kernel.netlink_socket import NetlinkSocket


def own():
    return Path("/proc/thread-self/ns/net").stat().st_ino


def test_what_is_no_network_namespace_is_not_opened(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for path, number in (
        (str(tmp_path / "absent"), errno.ENOENT),
        (str(file), errno.EINVAL),
        (str(tmp_path), errno.EINVAL),
        ("/proc/self/ns/uts", errno.EINVAL),
        ("a\0b", errno.EINVAL),
    ):
        with pytest.raises(KernelError) as caught:
            netns.open_namespace(path)
        assert caught.value.errno == number, path


@pytest.mark.kernel
def test_the_thread_is_inside_and_then_outside_again(namespace, make_namespace):
    other = make_namespace()

    def work():
        before = own()
        descriptor = netns.open_namespace(other.path)
        try:
            assert not netns.is_own_namespace(descriptor)
            with netns.InNamespace(descriptor):
                inside = own()
                assert netns.is_own_namespace(descriptor)
        finally:
            os.close(descriptor)
        return before, inside, own()

    before, inside, after = namespace.run(work)
    assert inside == os.fstat(other.fd).st_ino
    assert before == after == os.fstat(namespace.fd).st_ino


@pytest.mark.kernel
def test_the_thread_comes_back_after_an_error(namespace, make_namespace):
    other = make_namespace()

    def work():
        with pytest.raises(ZeroDivisionError), netns.InNamespace(other.fd):
            _ = 1 / 0
        return own()

    assert namespace.run(work) == os.fstat(namespace.fd).st_ino


@pytest.mark.kernel
def test_a_socket_stays_in_the_namespace_in_which_it_was_opened(namespace, make_namespace):
    other = make_namespace()

    def mark():
        with IPRoute() as writer:
            writer.link("add", ifname="here", kind="bridge")

    other.run(mark)

    def work():
        with netns.open_socket_inside(other.fd) as inside, NetlinkSocket() as outside:
            return link.read_link(inside, "here") is not None, link.read_link(outside, "here") is not None

    assert namespace.run(work) == (True, False)


@pytest.mark.kernel
def test_a_descriptor_of_something_else_cannot_be_entered(namespace):
    def work():
        descriptor = os.open("/dev/null", os.O_RDONLY)
        try:
            with pytest.raises(KernelError) as caught, netns.InNamespace(descriptor):
                pass
        finally:
            os.close(descriptor)
        return caught.value.errno, own()

    assert namespace.run(work) == (errno.EINVAL, os.fstat(namespace.fd).st_ino)
