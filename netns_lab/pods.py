"""The pods of a lab: which there are, and how one is made and unmade by the plugins installed on its node."""

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from netns_lab import cni
from netns_lab.errors import LabError, UsageError
from netns_lab.folder import LabFolder
from netns_lab.places import NETNS, make_pod_place, node_place, pod_place, remove_pod_place
from netns_lab.processes import run_to_end
from netns_lab.programs import find_program
from netns_lab.topology import Node
from netns_lab.underlay import open_netlink, raise_loopback

INSTALL_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that is wired, with the result of its ADD, from which its address comes."""

    name: str
    node: str
    container_id: str
    result: cni.Json

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its addresses, IPv4 first; its name stands for the first."""
        return tuple(str(address.ip) for address in cni.result_addresses(self.result))

    @property
    def attachment(self) -> cni.Attachment:
        """What the plugins are told of it."""
        return cni.Attachment(self.container_id, NETNS / self.name)


def install_plugins(folder: LabFolder, node: Node) -> None:
    """Install the plugin and its conflist on a node. Raises LabError."""
    command = [
        str(find_program("flannelctl")),
        "cni",
        "install",
        f"--bin-dir={cni.BIN_FOLDER}",
        f"--conf-dir={cni.CONFIG_FOLDER}",
    ]
    done = run_to_end(command, node_place(node.name), seconds=INSTALL_SECONDS)
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)} failed on {node.name}: {done.stderr.strip()}")
    conflist = conflist_file(folder, node.name)
    conflist.write_text(cni.fit_to_lab(conflist.read_text()))


def _config_folder(folder: LabFolder, node: str) -> Path:
    return folder.node(node) / "run" / cni.CONFIG_FOLDER.relative_to("/run")


def conflist_file(folder: LabFolder, node: str) -> Path:
    """Return the node's first conflist, as the lab sees it. Raises LabError."""
    files = sorted(_config_folder(folder, node).glob("*.conflist"))
    if not files:
        raise LabError(f"{node} has no conflist in {cni.CONFIG_FOLDER}")
    return files[0]


def _read_network(folder: LabFolder, node: str) -> cni.NetworkList:
    return cni.parse_network_list(conflist_file(folder, node).read_text())


def read_pods(folder: LabFolder) -> tuple[Pod, ...]:
    """All pods, by name."""
    return tuple(Pod(**json.loads(file.read_text())) for file in sorted(folder.pods.glob("*.json")))


def find_pod(folder: LabFolder, name: str) -> Pod:
    """Return the pod of that name. Raises UsageError."""
    for pod in read_pods(folder):
        if pod.name == name:
            return pod
    raise UsageError(f"no pod is named {name}")


def add_pod(folder: LabFolder, name: str, node: Node) -> Pod:
    """Make a pod on a node. Raises LabError, and nothing of the pod is left then."""
    if not _config_folder(folder, node.name).exists():
        install_plugins(folder, node)
    network = _read_network(folder, node.name)
    place = node_place(node.name)
    attachment = cni.Attachment(f"{name}-{secrets.token_hex(4)}", NETNS / name)
    make_pod_place(name, node.name)
    try:
        with open_netlink(pod_place(name, node.name).network) as netlink:
            raise_loopback(netlink)
        pod = Pod(name, node.name, attachment.container_id, cni.add(network, attachment, place))
    except LabError as failure:
        try:
            cni.delete(network, attachment, None, place)  # the specification asks for it after a failed ADD
        except LabError as another:
            raise LabError(f"{failure}; then {another}") from failure
        finally:
            remove_pod_place(name, node.name)
        raise
    _pod_file(folder, name).write_text(json.dumps(asdict(pod)))
    return pod


def delete_pod(folder: LabFolder, pod: Pod) -> None:
    """Unmake a pod. Raises LabError if the plugins fail; the pod is then still there."""
    cni.delete(_read_network(folder, pod.node), pod.attachment, pod.result, node_place(pod.node))
    remove_pod_place(pod.name, pod.node)
    _pod_file(folder, pod.name).unlink()


def _pod_file(folder: LabFolder, name: str) -> Path:
    return folder.pods / f"{name}.json"
