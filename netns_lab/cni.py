"""The part of a container runtime that CNI's specification 1.1 describes: it drives a list of plugins.

Pure, but for `invoke`. What a plugin gets: its own configuration with the list's name and version and the result
of the one before it (section 3), parameters in its environment (section 2).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path

from netns_lab.errors import LabError
from netns_lab.namespaces import Place
from netns_lab.processes import run_to_end

# As the node sees them: its /run is its own.
BIN_FOLDER = Path("/run/cni/bin")
CONFIG_FOLDER = Path("/run/cni/net.d")
FLANNEL_DATA = "/run/cni/flannel"
IPAM_DATA = "/run/cni/networks"
PLUGIN_SECONDS = 30.0
INTERFACE = "eth0"

Json = Mapping[str, object]


class CniError(LabError):
    """A plugin failed; the message holds its error object's code and text."""


@dataclass(frozen=True, slots=True)
class NetworkList:
    """A parsed conflist."""

    name: str
    version: str
    plugins: tuple[Json, ...]


@dataclass(frozen=True, slots=True)
class Attachment:
    """A container's interface in a network; `network_namespace` is its path as the node sees it."""

    container_id: str
    network_namespace: Path
    interface: str = INTERFACE


def parse_network_list(text: str) -> NetworkList:
    """Read a conflist. Raises CniError."""
    try:
        values = json.loads(text)
        plugins = tuple(values["plugins"])
        return NetworkList(values["name"], values["cniVersion"], plugins)
    except (ValueError, KeyError, TypeError) as error:
        raise CniError(f"the conflist is not as the CNI specification says: {error!r}") from error


def fit_to_lab(text: str) -> str:
    """Return the same conflist with flannel's and its IPAM's state under /run, which alone is each node's own.

    Pods are not masqueraded: a lab has no world outside that would not know them, and perhaps no iptables.
    """
    values = json.loads(text)
    for plugin in values["plugins"]:
        if plugin["type"] == "flannel":
            plugin["dataDir"] = FLANNEL_DATA
            plugin["ipam"] = plugin.get("ipam", {}) | {"dataDir": IPAM_DATA}
            plugin["delegate"] = {"ipMasq": False} | plugin.get("delegate", {})
    return json.dumps(values, indent=2) + "\n"


def plugin_input(network: NetworkList, plugin: Json, previous: Json | None) -> str:
    """Write what a plugin reads on its standard input."""
    config = {**plugin, "name": network.name, "cniVersion": network.version}
    return json.dumps(config if previous is None else {**config, "prevResult": previous})


def plugin_environment(verb: str, attachment: Attachment) -> dict[str, str]:
    """Return the parameters of an operation."""
    return {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": attachment.container_id,
        "CNI_NETNS": str(attachment.network_namespace),
        "CNI_IFNAME": attachment.interface,
        "CNI_PATH": str(BIN_FOLDER),
    }


def result_addresses(result: Json) -> tuple[IPv4Interface | IPv6Interface, ...]:
    """Return the addresses in an ADD's result. Raises CniError if it has none."""
    ips = result.get("ips")
    if not isinstance(ips, Sequence) or not ips:
        raise CniError(f"the plugins gave the container no address: {json.dumps(result)}")
    return tuple(ip_interface(entry["address"]) for entry in ips)


def describe_failure(plugin: str, verb: str, stdout: str, stderr: str) -> str:
    """One message from what a failed plugin wrote: an error object, if it keeps to the specification."""
    try:
        error = json.loads(stdout)
        what = f"code {error['code']}: {error['msg']} {error.get('details', '')}".strip()
    except (ValueError, KeyError, TypeError):
        what = (stdout + stderr).strip() or "it said nothing"
    return f"CNI {verb} by {plugin} failed: {what}"


@dataclass(frozen=True, slots=True)
class Operation:
    """One verb for one attachment, on a node."""

    verb: str
    network: NetworkList
    attachment: Attachment
    node: Place

    def run(self, plugin: Json, previous: Json | None) -> str:
        """Run one plugin and return its standard output. Raises CniError."""
        name = str(plugin["type"])
        done = run_to_end(
            [str(BIN_FOLDER / name)],
            self.node,
            seconds=PLUGIN_SECONDS,
            stdin=plugin_input(self.network, plugin, previous),
            extra=plugin_environment(self.verb, self.attachment),
        )
        if done.returncode != 0:
            raise CniError(describe_failure(name, self.verb, done.stdout, done.stderr))
        return done.stdout


def add(network: NetworkList, attachment: Attachment, node: Place) -> Json:
    """Run ADD through the list and return the last plugin's result. Raises CniError."""
    operation = Operation("ADD", network, attachment, node)
    result: Json | None = None
    for plugin in network.plugins:
        output = operation.run(plugin, result)
        try:
            result = json.loads(output)
        except ValueError as error:
            raise CniError(f"CNI ADD by {plugin['type']} gave no JSON: {output!r}") from error
    if result is None:
        raise CniError(f"the network {network.name} has no plugins")
    return result


def delete(network: NetworkList, attachment: Attachment, result: Json | None, node: Place) -> None:
    """Run DEL through the list, last plugin first, each with the result of the ADD. Raises CniError."""
    operation = Operation("DEL", network, attachment, node)
    for plugin in reversed(network.plugins):
        operation.run(plugin, result)
