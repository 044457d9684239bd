"""Debian's containerd on a node, asked over the Container Runtime Interface as kubelet asks it."""

import subprocess

import grpc

from tests.cni_plugin.pod_image import IMAGE, write_image, write_low_runtime
from tests.waiting import wait_until

CALL_SECONDS = 30

# No cgroups, security modules or raised OOM scores: what a user namespace, in which the tests run, may not have.
_CONFIG = """\
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
disable_cgroup = true
disable_apparmor = true
restrict_oom_score_adj = true
disable_hugetlb_controller = true
disable_tcp_service = true
netns_mounts_under_state_dir = true
sandbox_image = "{image}"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "{runc}"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{bin}"
conf_dir = "{conf}"
"""

cri, cri_services = grpc.protos_and_services("tests/cni_plugin/cri.proto")


def write_config(folder, socket, bin_dir, conf_dir, snapshotter="native"):
    """Write containerd's configuration for a node; what it keeps lies in `folder`. Returns its path."""
    config, runc = folder / "containerd.toml", folder / "runc"
    write_low_runtime(runc, "runc")
    names = {"folder": folder, "socket": socket, "image": IMAGE, "runc": runc, "bin": bin_dir, "conf": conf_dir}
    config.write_text(_CONFIG.format(**names, snapshotter=snapshotter))
    return config


class Containerd:
    """A containerd in a node's namespace, with the node's plugins, and the pods that it runs."""

    def __init__(self, node, conf):
        """Start it; `conf` is the folder with its network configuration."""
        folder = node.folder
        self._log = folder / "containerd.log"
        self._socket = folder / "c.sock"
        config = write_config(folder, self._socket, node.bin, conf)
        # It has a /run of its own, where it keeps sockets, and portmap a lock, wherever it is told to keep the rest.
        command = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none /run && exec containerd --config "{config}"']
        with self._log.open("wb") as log:
            self._process = node.host.run(lambda: subprocess.Popen(command, stdout=log, stderr=log))
        wait_until(self._socket.exists)
        self._channel = grpc.insecure_channel(f"unix:{self._socket}")
        self._runtime = cri_services.RuntimeServiceStub(self._channel)
        self._pods = []
        image = folder / "image.tar"
        write_image(image)
        ctr = ["ctr", "--address", self._socket, "--namespace", "k8s.io"]
        subprocess.run([*ctr, "images", "import", "--snapshotter", "native", image], check=True, capture_output=True)

    def ask(self, method, request):
        """Call a method of the runtime. Fails with containerd's log if it does."""
        try:
            return getattr(self._runtime, method)(request, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            raise AssertionError(f"{method}: {error.details()}\n{self._log.read_text()[-3000:]}") from error

    def is_network_ready(self):
        """Whether containerd has told kubelet that it can run pods: it has found the network configuration."""
        told = self.ask("Status", cri.Nothing()).status.conditions
        return any(condition.type == "NetworkReady" and condition.status for condition in told)

    def run_pod(self, name, command, ports=()):
        """Run a pod of one container; `ports` are pairs of the node's and the pod's."""
        config = cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=name, uid=name, namespace="default"),
            log_directory=str(self._log.parent),
            port_mappings=[cri.PortMapping(host_port=host, container_port=own) for host, own in ports],
        )
        sandbox = self.ask("RunPodSandbox", cri.RunPodSandboxRequest(config=config)).pod_sandbox_id
        pod = RunningPod(self, sandbox)
        self._pods.append(pod)
        container = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=name), image=cri.ImageSpec(image=IMAGE), command=command
        )
        request = cri.CreateContainerRequest(pod_sandbox_id=sandbox, config=container, sandbox_config=config)
        pod.container = self.ask("CreateContainer", request).container_id
        self.ask("StartContainer", cri.StartContainerRequest(container_id=pod.container))
        return pod

    def forget(self, pod):
        self._pods.remove(pod)

    def close(self):
        try:
            for pod in list(self._pods):
                pod.remove()
        finally:
            self._channel.close()
            self._process.terminate()
            self._process.wait(20)


class RunningPod:
    """A pod of one container."""

    def __init__(self, containerd, sandbox):
        self._containerd = containerd
        self._request = cri.PodSandboxRequest(pod_sandbox_id=sandbox)
        self.container = ""

    @property
    def ip(self):
        return self._containerd.ask("PodSandboxStatus", self._request).status.network.ip

    def execute(self, *command):
        """Run a command in the container; returns its exit status and its output."""
        request = cri.ExecSyncRequest(container_id=self.container, cmd=command, timeout=CALL_SECONDS)
        done = self._containerd.ask("ExecSync", request)
        return done.exit_code, (done.stdout + done.stderr).decode()

    def remove(self):
        self._containerd.forget(self)
        for method in ("StopPodSandbox", "RemovePodSandbox"):
            self._containerd.ask(method, self._request)
