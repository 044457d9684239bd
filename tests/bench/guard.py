"""What the guard costs a packet from pod to pod through a vxlan tunnel, with it and without it, in turn, in one run.

Run in namespaces of its own: `make bench-guard`. The guard holds as many members as `--members` says. For what a packet
costs, one thread on one CPU sends and receives, so that every packet's whole way, sender's and receiver's, is CPU time
of this process, and nothing waits for a scheduler: what a core gets through is one divided by that. For the throughput,
a process sends on one CPU what another receives on the next, as fast as they can.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import socket
import statistics
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from flanneld_py.core.entries import Kind
from flanneld_py.core.plan import Operation
from flanneld_py.core.prefix import IPV4, Prefix
from flanneld_py.core.tunnel_port import admission
from flanneld_py.kernel.guard_rules import GuardPlan
from flanneld_py.kernel.guard_table import GuardTable
from flanneld_py.kernel.vxlan import vxlan_port
from tests.conftest import Namespace

if TYPE_CHECKING:
    from collections.abc import Callable

_PORT = 7000
_POD = "10.0.{}.2"
_PAYLOAD, _BATCH = 64, 64
_UNDERLAY = 172 << 24 | 30 << 16
_NETWORK = 10 << 24
_NODE = """
link set lo up
addr add 172.30.0.{own}/16 dev eth0
link set eth0 up
link add flannel.1 mtu 1450 type vxlan id 1 dev eth0 local 172.30.0.{own} dstport 8472 nolearning
link set flannel.1 address 02:00:00:00:00:0{own}
addr add 10.0.{own}.0/32 dev flannel.1
link set flannel.1 up
neigh add 10.0.{other}.0 lladdr 02:00:00:00:00:0{other} dev flannel.1 nud permanent
route add 10.0.{other}.0/24 via 10.0.{other}.0 dev flannel.1 onlink
addr add 10.0.{own}.1/24 dev pod
link set pod up
"""
_INSIDE = """
addr add 10.0.{own}.2/24 dev eth0
link set eth0 mtu 1450 up
route add default via 10.0.{own}.1
"""


def _run(place: Namespace, *words: str) -> None:
    place.run(lambda: subprocess.run(words, check=True))


def _plug(place: Namespace, name: str, far: Namespace) -> None:
    """Join two namespaces by a veth pair, whose far end is eth0."""
    holder = far.run(subprocess.Popen, ["sleep", "60"])
    _run(place, *f"ip link add {name} type veth peer name eth0 netns {holder.pid}".split())
    holder.kill()
    holder.wait()


def _wire() -> tuple[list[Namespace], list[Namespace]]:
    """Return two nodes and the pod on each."""
    nodes, pods = [Namespace(), Namespace()], [Namespace(), Namespace()]
    _plug(nodes[0], "eth0", nodes[1])
    for own, (node, pod) in enumerate(zip(nodes, pods, strict=True), 1):
        _plug(node, "pod", pod)
        for place, lines in ((node, _NODE), (pod, _INSIDE)):
            for line in lines.format(own=own, other=3 - own).strip().splitlines():
                _run(place, "ip", *line.split())
        entry = f"fdb replace 02:00:00:00:00:0{3 - own} dev flannel.1 dst 172.30.0.{3 - own} self permanent"
        _run(node, "bridge", *entry.split())
        _run(node, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    return nodes, pods


class _Guards:
    """The guards of both nodes; their members stay while the chains that ask for them come and go."""

    def __init__(self, places: list[Namespace], members: int) -> None:
        plan = GuardPlan(vxlan_port(8472, 1), (IPV4,), (), drop=True)
        self._tables = [place.run(GuardTable, "flannel.1", plan, [(IPV4, 24)]) for place in places]
        operations = [
            Operation(Kind.DRIVEN, False, admission(IPV4, _UNDERLAY + number, prefix))
            for number in range(1, members + 1)
            for prefix in (Prefix(IPV4, _NETWORK + (number << 8), 24), Prefix(IPV4, _UNDERLAY + number, 32))
        ]
        for table in self._tables:
            table.read()
            for start in range(0, len(operations), table.batch):
                table.apply(operations[start : start + table.batch])

    def switch(self, *, on: bool) -> None:
        for table in self._tables:
            if on:
                table.arm()
            else:
                table.disarm()


class _Part(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct mmsghdr (sendmmsg(2)): a message without name and control data."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("parts", ctypes.POINTER(_Part)),
        ("count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("length", ctypes.c_uint),
    )


class _OneCpu:
    """What one CPU spends on a unit, sender's and receiver's part."""

    what = "CPU"
    result = "what a core gets through"
    unit: str

    def turn(self) -> float:
        """Send and receive; return the units that came."""
        raise NotImplementedError

    def cost(self, seconds: float) -> float:
        """Return the seconds of CPU that one unit takes."""
        amount, until, spent = 0.0, time.monotonic() + seconds, time.thread_time()
        while time.monotonic() < until:
            amount += self.turn()
        return (time.thread_time() - spent) / amount


class _Datagrams(_OneCpu):
    """Small datagrams: a batch is sent by one call, and received by one."""

    unit = "packet"

    def __init__(self, near: Namespace, far: Namespace) -> None:
        self._sending = near.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
        self._receiving = far.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
        self._receiving.bind(("", _PORT))
        self._sending.connect((_POD.format(2), _PORT))
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._buffer = ctypes.create_string_buffer(_PAYLOAD)
        self._part = _Part(ctypes.addressof(self._buffer), _PAYLOAD)
        self._messages = (_Message * _BATCH)()
        for message in self._messages:
            message.parts, message.count = ctypes.pointer(self._part), 1

    def turn(self) -> int:
        """Send a batch and receive it; return how many came."""
        self._libc.sendmmsg(self._sending.fileno(), self._messages, _BATCH, 0)
        return int(self._libc.recvmmsg(self._receiving.fileno(), self._messages, _BATCH, socket.MSG_DONTWAIT, None))


class _Stream(_OneCpu):
    """A TCP stream: what the sender's buffer takes is sent, and all that has come is received."""

    unit = "Gbit"

    def __init__(self, near: Namespace, far: Namespace) -> None:
        with far.run(socket.create_server, (_POD.format(2), _PORT)) as server:
            self._sending = near.run(socket.create_connection, (_POD.format(2), _PORT))
            self._receiving, _ = server.accept()
        self._sending.setblocking(False)
        self._receiving.setblocking(False)
        self._data, self._buffer = bytes(1 << 17), bytearray(1 << 20)

    def turn(self) -> float:
        """Send and receive; return the Gbit that came."""
        with suppress(BlockingIOError):
            self._sending.send(self._data)
        with suppress(BlockingIOError):
            return self._receiving.recv_into(self._buffer) * 8 / 1e9
        return 0


class _Throughput:
    """A TCP stream from a process on one CPU to this one on another."""

    what = "time"
    result = "throughput"
    unit = "Gbit"

    def __init__(self, near: Namespace, far: Namespace) -> None:
        with far.run(socket.create_server, (_POD.format(2), _PORT)) as server:
            sending = near.run(socket.create_connection, (_POD.format(2), _PORT))
            receiving, _ = server.accept()
        sender = os.fork()
        if not sender:
            receiving.close()
            os.sched_setaffinity(0, {min(os.sched_getaffinity(os.getppid()))})
            with suppress(OSError):  # until nobody receives
                while True:
                    sending.send(bytes(1 << 17))
            os._exit(0)
        sending.close()
        self._receiving, self._buffer = receiving, bytearray(1 << 20)

    def cost(self, seconds: float) -> float:
        """Return the seconds that one unit takes."""
        amount, began = 0.0, time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            amount += self._receiving.recv_into(self._buffer) * 8 / 1e9
        return passed / amount


def _compare(kind: _OneCpu | _Throughput, guards: _Guards, rounds: int, seconds: float) -> str:
    costs: dict[bool, list[float]] = {False: [], True: []}
    for index in range(2 * rounds):
        # In the order of with, without, without, with: what changes slowly bears on both alike.
        on = index % 4 in {0, 3}
        guards.switch(on=on)
        kind.cost(seconds / 5)
        costs[on].append(kind.cost(seconds))
    shares = [without / with_ for without, with_ in zip(costs[False], costs[True], strict=True)]
    share, error = statistics.fmean(shares), 1.96 * statistics.stdev(shares) / len(shares) ** 0.5
    without, with_ = (statistics.median(costs[on]) * 1e6 for on in (False, True))
    spread = "{1:.3f} to {3:.3f}".format(*sorted(shares)[:: max(1, (len(shares) - 1) // 4)])
    return (
        f"{kind.what} a {kind.unit}, µs: without {without:,.3f}, with {with_:,.3f}; {kind.result}, with ÷ without: "
        f"{share:.4f} ± {error:.4f} (95 %), median {statistics.median(shares):.4f}, half of the rounds {spread}"
    )


def main() -> None:
    """Print what the guard costs small datagrams and a stream."""
    parser = argparse.ArgumentParser(description="time a tunnel with and without the guard")
    parser.add_argument("--members", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=100, help="of each with, and as many without")
    parser.add_argument("--seconds", type=float, default=0.1, help="a round")
    chosen = parser.parse_args()
    cpus = os.sched_getaffinity(0)
    nodes, pods = _wire()
    guards = _Guards(nodes, chosen.members)
    kinds: dict[str, Callable[[], _OneCpu | _Throughput]] = {
        "datagrams of 64 bytes, one CPU": lambda: _Datagrams(*pods),
        "one TCP stream, one CPU": lambda: _Stream(*pods),
        "one TCP stream, two CPUs": lambda: _Throughput(*pods),
    }
    for name, make in kinds.items():
        os.sched_setaffinity(0, cpus)
        kind = make()
        os.sched_setaffinity(0, {max(cpus)})
        print(
            f"{name}, {chosen.members:,} members: {_compare(kind, guards, chosen.rounds, chosen.seconds)}", flush=True
        )


if __name__ == "__main__":
    main()
