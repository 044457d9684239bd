"""A node on which the installed executable is called as a runtime would, in namespaces of the test's own.

Most tests run three times: with no daemon, so that the executable does all by itself, with one that serves its calls
by the socket, and with one at whose door it rings.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flanneld_py.ctl.cni import install
from flanneld_py.ctl.cni_files import encode_ringing_executable

POD_DAEMON = Path(__file__).parent / "pod_daemon.py"


class Node:
    """A host namespace with subnet.env, data folders and the installed plugin."""

    def __init__(self, host, make_namespace, folder):
        self.host = host
        self.folder = folder
        self.subnet_file = folder / "subnet.env"
        self.networks = folder / "networks" / "cbr0"
        self.scratch = folder / "scratch"
        self.bin = folder / "bin"
        self.executable = self.bin / "flannel"
        self.daemon = None
        self._make_namespace = make_namespace
        install(self.bin, folder / "net.d")
        self.write_env("10.5.0.0/16", "10.5.2.1/24")

    def write_env(self, network, subnet, network6="", subnet6="", mtu=1450, ip_masq=True):
        lines = [f"FLANNEL_NETWORK={network}", f"FLANNEL_SUBNET={subnet}"] if network else []
        if network6:
            lines += [f"FLANNEL_IPV6_NETWORK={network6}", f"FLANNEL_IPV6_SUBNET={subnet6}"]
        lines += [f"FLANNEL_MTU={mtu}", f"FLANNEL_IPMASQ={str(ip_masq).lower()}"]
        self.subnet_file.write_text("\n".join(lines) + "\n")

    def config(self, version="1.1.0", delegate=None, **more):
        config = {
            "cniVersion": version,
            "name": "cbr0",
            "type": "flannel",
            "subnetFile": str(self.subnet_file),
            "dataDir": str(self.scratch),
            "ipam": {"dataDir": str(self.networks.parent)},
            "delegate": {"hairpinMode": True, "isDefaultGateway": True} if delegate is None else delegate,
        }
        return config | more

    def start_daemon(self, *words):
        command = [sys.executable, str(POD_DAEMON), str(self.subnet_file), *words]
        with self.log.open("ab") as log:
            self.daemon = self.host.run(
                lambda: subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    cwd=POD_DAEMON.parents[2],
                    env=os.environ | {"PYTHONPATH": str(POD_DAEMON.parents[2])},
                )
            )
        assert self.daemon.stdout.readline() == b"listening\n"

    def use_door(self):
        """Have the executable that rings at the door of this node's daemon."""
        packages = str(POD_DAEMON.parents[2])
        self.executable.write_bytes(
            encode_ringing_executable(os.path.realpath(sys.executable), packages, door=str(self.door))
        )

    @property
    def door(self):
        return self.subnet_file.with_name("subnet.cni.door")

    def stop_daemon(self):
        """End the daemon in peace; what it had put off is done then."""
        if self.daemon is not None:
            self.daemon.communicate()
            assert self.daemon.returncode == 0
            self.daemon = None

    @property
    def log(self):
        return self.folder / "daemon.log"

    def served(self):
        """What the daemon says of the calls that it was given."""
        lines = self.log.read_text().splitlines()
        return [line.removeprefix("cni: ") for line in lines if " for " in line]

    def settle(self):
        """Return when the daemon has done what it puts off until after its answers."""
        if self.daemon is not None:
            self.execute("STATUS", json.dumps(self.config()).encode())

    def run(self, verb, stdin, **environment):
        """Execute the plugin in the host's namespace; returns its exit status and its standard output."""
        status, output = self.execute(verb, stdin, **environment)
        if verb == "DEL":
            self.settle()
        return status, output

    def execute(self, verb, stdin, **environment):
        """As `run`, and come back as soon as the plugin does."""
        variables = {"CNI_COMMAND": verb, "CNI_PATH": str(self.bin)} | environment

        def execute():
            return subprocess.run(
                [self.executable], input=stdin, env=variables, capture_output=True, check=False, timeout=30
            )

        done = self.host.run(execute)
        assert done.stderr == b"", done.stderr.decode()
        return done.returncode, done.stdout

    def call(self, verb, container, netns, config=None, ifname="eth0", **environment):
        """Call a verb for a container, expecting success; returns the result, None if there is none."""
        status, output = self.attempt(verb, container, netns, config, ifname, **environment)
        assert status == 0, output
        return output

    def attempt(self, verb, container, netns, config=None, ifname="eth0", **environment):
        """Call a verb for a container; returns the exit status and what the plugin wrote, as JSON."""
        status, output = self.run(
            verb,
            json.dumps(self.config() if config is None else config).encode(),
            CNI_CONTAINERID=container,
            CNI_NETNS=netns,
            CNI_IFNAME=ifname,
            **environment,
        )
        return status, json.loads(output) if output else None

    def refused(self, verb, container, netns, config=None, ifname="eth0", **environment):
        """Call a verb for a container, expecting an error object; returns it."""
        status, error = self.attempt(verb, container, netns, config, ifname, **environment)
        assert status == 1, error
        assert error.keys() <= {"cniVersion", "code", "msg", "details"}
        return error

    def make_pod(self):
        return self._make_namespace()

    def held(self):
        """The addresses that are noted down."""
        if not self.networks.exists():
            return []
        return sorted(file.name for file in self.networks.iterdir() if file.name[0].isdigit() or ":" in file.name)


@pytest.fixture
def lone_node(make_namespace, tmp_path):
    """A node without a daemon."""
    made = Node(make_namespace(), make_namespace, tmp_path)
    yield made
    made.stop_daemon()


@pytest.fixture(params=["alone", "daemon", "door"])
def node(lone_node, request):
    if request.param != "alone":
        lone_node.start_daemon()
    if request.param == "door":
        lone_node.use_door()
    return lone_node


@pytest.fixture
def ringing_node(lone_node):
    lone_node.start_daemon()
    lone_node.use_door()
    return lone_node
