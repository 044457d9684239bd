"""A real etcd on loopback, with its data in a folder of the test's own."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from flanneld_py.store import etcd_pb2 as pb
from flanneld_py.store.etcd_api import LEASE_GRANT, RANGE, TXN, keys_below
from flanneld_py.store.etcd_client import EtcdClient
from flanneld_py.store.etcd_options import EtcdOptions, parse_endpoints
from flanneld_py.store.etcd_subnet_manager import EtcdSubnetManager
from tests.store.contract import UNREADABLE_KEYS

START_SECONDS = 20.0

_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])


def find_program(name):
    path = shutil.which(name, path=_SEARCH_PATH)
    if path is None:
        pytest.fail(
            f"no {name} on PATH or beside this Python: run `make venv`, or apt-get install etcd-server etcd-client"
        )
    return path


_given_ports = set()


def free_ports(count):
    """Return ports that nobody listens on, below those that the kernel gives to clients in the meantime."""
    found = []
    while len(found) < count:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            if port not in _given_ports:
                _given_ports.add(port)
                found.append(port)
    return found


class EtcdServer:
    """One member of an etcd, alone or in a cluster; its addresses stay the same over restarts.

    `tls` and `extra` are flags of etcd.
    """

    def __init__(self, folder, *, tls=(), extra=()):
        self.folder = folder
        self.tls = tuple(tls)
        self.extra = tuple(extra)
        self.port, peer_port, self._health_port = free_ports(3)
        self.peer_url = f"http://127.0.0.1:{peer_port}"
        self.members = [self]
        self._process = None

    @property
    def name(self):
        return f"m{self.port}"

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def options(self, **changes):
        changes.setdefault("endpoints", parse_endpoints(self.url))
        return EtcdOptions(**changes)

    def start(self):
        self.launch()
        self.wait_until_healthy()

    def launch(self):
        command = [
            find_program("etcd"),
            f"--name={self.name}",
            f"--data-dir={self.folder / 'data'}",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            f"--initial-cluster={','.join(f'{member.name}={member.peer_url}' for member in self.members)}",
            f"--listen-metrics-urls=http://127.0.0.1:{self._health_port}",
            "--heartbeat-interval=20",
            "--election-timeout=200",
            "--log-level=error",
            *self.tls,
            *self.extra,
        ]
        with (self.folder / "etcd.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def stop(self, sign=signal.SIGKILL):
        if self._process is not None:
            self._process.send_signal(sign)
            self._process.wait(10)
            self._process = None

    def signal(self, sign):
        self._process.send_signal(sign)

    def restart(self):
        self.stop()
        self.start()

    def forget_everything(self):
        """Come back empty, as another cluster."""
        self.stop()
        shutil.rmtree(self.folder / "data")
        self.start()

    def restore(self, backup):
        """Come back as the backup has it."""
        self.stop()
        shutil.rmtree(self.folder / "data")
        command = [find_program("etcdctl"), "snapshot", "restore", str(backup), f"--data-dir={self.folder / 'data'}"]
        command += [f"--name={self.name}", f"--initial-advertise-peer-urls={self.peer_url}"]
        command += [f"--initial-cluster={self.name}={self.peer_url}"]
        subprocess.run(command, check=True, capture_output=True, env={"ETCDCTL_API": "3"})
        self.start()

    def ctl(self, *args):
        """Run etcdctl against the server and return what it prints."""
        command = [find_program("etcdctl"), f"--endpoints={self.url}", *args]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env={"ETCDCTL_API": "3"})
        return done.stdout

    def transact(self, operations):
        """Carry out operations of `etcdctl txn`, such as `put KEY "VALUE"`, all at once."""
        command = [find_program("etcdctl"), f"--endpoints={self.url}", "txn"]
        text = "\n" + "\n".join(operations) + "\n\n\n"
        subprocess.run(command, input=text, check=True, capture_output=True, text=True, env={"ETCDCTL_API": "3"})

    def wait_until_healthy(self):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                pytest.fail(f"etcd ended: {(self.folder / 'etcd.log').read_text()[-2000:]}")
            with suppress(OSError, urllib.error.URLError):
                # No proxy: the address is the loopback's.
                opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                with opener.open(f"http://127.0.0.1:{self._health_port}/health", timeout=1) as answer:
                    if b'"true"' in answer.read():
                        return
            time.sleep(0.02)
        pytest.fail(f"etcd is not healthy after {START_SECONDS} s: {(self.folder / 'etcd.log').read_text()[-2000:]}")


class EtcdHarness:
    """A prefix of a real etcd, for the contract suite and beyond: what an operator and other nodes do there."""

    unreadable = UNREADABLE_KEYS

    def __init__(self, options):
        self.options = options
        self.client = EtcdClient(options, random.Random(0))  # noqa: S311 - repeatable
        self._managers = []

    def manager(self, options=None, seed=None):
        rng = random.Random(len(self._managers) if seed is None else seed)  # noqa: S311 - repeatable
        manager = EtcdSubnetManager(options or self.options, rng)
        self._managers.append(manager)
        return manager

    @staticmethod
    def name(key):
        return key

    def key(self, name):
        return f"{self.options.prefix}/subnets/{name}".encode()

    async def write(self, operation):
        return await self.client.call(TXN, pb.TxnRequest(success=[pb.RequestOp(**operation)]))

    async def set_config(self, text):
        key = f"{self.options.prefix}/config".encode()
        if text is None:
            await self.write({"request_delete_range": pb.DeleteRangeRequest(key=key)})
        else:
            await self.write({"request_put": pb.PutRequest(key=key, value=text.encode())})

    async def put(self, name, text, *, expires=True, ttl=86_400):
        lease = 0
        if expires:
            lease = (await self.client.call(LEASE_GRANT, pb.LeaseGrantRequest(TTL=ttl))).ID
        put = pb.PutRequest(key=self.key(name), value=text.encode(), lease=lease)
        await self.write({"request_put": put})
        return lease

    async def delete(self, name):
        await self.write({"request_delete_range": pb.DeleteRangeRequest(key=self.key(name))})

    async def raw(self):
        keys = keys_below(self.key(""))
        response = await self.client.call(RANGE, pb.RangeRequest(key=keys.start, range_end=keys.end))
        return {record.key[len(keys.start) :].decode(): record for record in response.kvs}

    async def records(self):
        return {name: (record.value.decode(), bool(record.lease)) for name, record in (await self.raw()).items()}

    async def close(self):
        for manager in self._managers:
            await manager.close()
        await self.client.close()
