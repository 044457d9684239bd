"""Fixtures for tests that need the kernel: network namespaces of their own. No test fails for being slow."""

import ctypes
import fcntl
import os
import socket
import struct
import threading
from concurrent.futures import Future
from contextlib import contextmanager

import pytest
from hypothesis import settings

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_libc = ctypes.CDLL(None, use_errno=True)


def _in_thread(work):
    """Run `work` in a thread of its own, which ends with whatever namespace it has entered."""
    future = Future()

    def run():
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - the caller gets it, whatever it is
            future.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return future.result()


def _check(returned):
    if returned < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Namespace:
    """A network namespace, kept alive by a descriptor only: closing it ends the namespace and all devices in it."""

    def __init__(self):
        self.fd = _in_thread(self._unshare)

    @staticmethod
    def _unshare():
        _check(_libc.unshare(_CLONE_NEWNET))
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def path(self):
        """A path that any process of this user can open, as CNI_NETNS wants it."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def run(self, work, *args):
        """Call `work` in a thread inside the namespace; processes that it starts are inside as well."""

        def inside():
            _check(_libc.setns(self.fd, _CLONE_NEWNET))
            return work(*args)

        return _in_thread(inside)

    @contextmanager
    def entered(self):
        """Have the calling thread itself be in the namespace: `/proc/sys/net` is that of whoever reads it."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(self.fd, _CLONE_NEWNET))
            yield
        finally:
            _check(_libc.setns(before, _CLONE_NEWNET))
            os.close(before)

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@pytest.fixture(scope="session")
def loopback():
    """The loopback interface, which is down in a new network namespace; one that is up is left alone."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sH14x", b"lo", 0))
        _, flags = struct.unpack_from("16sH", answer)
        if not flags & _IFF_UP:
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


@pytest.fixture
def make_namespace():
    """A function that makes a new, empty network namespace; the machine's own network is never entered."""
    made = []

    def make():
        try:
            namespace = Namespace()
        except PermissionError:
            pytest.skip("the kernel refuses a network namespace to this user: run `make test`")
        made.append(namespace)
        return namespace

    yield make
    for namespace in made:
        namespace.close()


@pytest.fixture
def namespace(make_namespace):
    """A new, empty network namespace."""
    return make_namespace()


@pytest.fixture
def host(namespace):
    """A host in a namespace of its own, with an uplink."""
    from tests.host import Host  # pyroute2, which most tests get by without

    made = Host(namespace)
    yield made
    made.close()


@pytest.fixture
async def far(make_namespace):
    """The other end of a node's uplink, where what comes through the tunnel is read off the wire."""
    from tests.agent.on_demand_node import FarSide  # few tests need what this imports

    side = FarSide(make_namespace())
    side.listen()
    yield side
    side.close()


@pytest.fixture
def near(make_namespace, far):
    """The host at this end of the uplink; the test itself is in its namespace."""
    from tests.agent.on_demand_node import NodeHost

    made = NodeHost(make_namespace(), far.namespace)
    with made.namespace.entered():
        yield made
    made.close()


@pytest.fixture
def sender(near):
    """A process there that sends packets."""
    from tests.agent.on_demand_node import Sender

    made = Sender(near)
    yield made
    made.close()
