"""Debian's podman on a node, which calls the plugins itself: no service runs."""

import json
import subprocess

from tests.cni_plugin.pod_image import IMAGE, write_image, write_low_runtime

CALL_SECONDS = 60

# No cgroups and security modules: what a user namespace, in which the tests run, may not have.
_CONFIG = """\
[containers]
cgroups = "disabled"
apparmor_profile = "unconfined"
[network]
network_backend = "cni"
cni_plugin_dirs = ["{bin}"]
network_config_dir = "{conf}"
default_network = "cbr0"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "crun"
[engine.runtimes]
crun = ["{crun}"]
"""

# Mounts of containers stay from one call to the next, for all calls see those of this process. It has a /run of its
# own, since podman takes short paths only, and hides the machine's cgroups: crun takes no mixture of both versions.
_HOLD = "mount -t tmpfs none /run && mount -t tmpfs none /sys/fs/cgroup && echo held && exec cat"


class Podman:
    """podman in a node's namespace, with the node's plugins, and the pods that it runs."""

    def __init__(self, node, conf):
        """Load the image; `conf` is the folder with its network configuration."""
        folder = node.folder
        self._node = node
        config, crun, image = folder / "containers.conf", folder / "crun", folder / "image.tar"
        write_low_runtime(crun, "crun")
        config.write_text(_CONFIG.format(bin=node.bin, conf=conf, crun=crun))
        command = ["unshare", "--mount", "sh", "-c", _HOLD]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdout.readline() == b"held\n"
        own = [f"--root={folder / 'root'}", "--runroot=/run/containers", "--tmpdir=/run/podman"]
        enter = ["nsenter", f"--target={self._holder.pid}", "--mount", "env", f"CONTAINERS_CONF={config}"]
        self._command = [*enter, "podman", *own, "--storage-driver=vfs"]
        self._pods = []
        write_image(image)
        self.ask("load", f"--input={image}")

    def call(self, *words):
        """Run podman; returns its exit status and all that it says."""

        def run():
            return subprocess.run(
                [*self._command, *words], capture_output=True, text=True, check=False, timeout=CALL_SECONDS
            )

        done = self._node.host.run(run)
        return done.returncode, done.stdout + done.stderr

    def ask(self, *words):
        """Run podman, which must succeed, and return what it says."""
        status, told = self.call(*words)
        assert status == 0, told
        return told

    def is_network_ready(self):
        """Whether it knows the network."""
        return "cbr0" in self.ask("network", "ls")

    def run_pod(self, name, command, ports=()):
        """Run a container; `ports` are pairs of the node's and its own."""
        published = [f"--publish={host}:{own}" for host, own in ports]
        self.ask("run", "--detach", f"--name={name}", *published, IMAGE, *command)
        pod = RunningPod(self, name)
        self._pods.append(pod)
        return pod

    def forget(self, pod):
        self._pods.remove(pod)

    def close(self):
        try:
            for pod in list(self._pods):
                pod.remove()
        finally:
            self._holder.communicate()


class RunningPod:
    """A container."""

    def __init__(self, podman, name):
        self._podman = podman
        self._name = name

    @property
    def ip(self):
        [told] = json.loads(self._podman.ask("inspect", self._name))
        return told["NetworkSettings"]["IPAddress"]

    def execute(self, *command):
        """Run a command in the container; returns its exit status and its output."""
        return self._podman.call("exec", self._name, *command)

    def remove(self):
        self._podman.forget(self)
        self._podman.ask("rm", "--force", "--time=0", self._name)
