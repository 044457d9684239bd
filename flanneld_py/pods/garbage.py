"""GC: what containers that the runtime no longer knows have left is taken away: devices, addresses, files.

Most devices went with their containers' namespaces. Those that stand are known by their labels.
"""

from __future__ import annotations

import os

from flanneld_py.core.named_tuple import TYPE_CHECKING
from flanneld_py.kernel import link as links
from flanneld_py.kernel import veth
from flanneld_py.pods import errors, guard, scratch
from flanneld_py.pods.bridge_conf import parse_store_conf
from flanneld_py.pods.errors import CniError
from flanneld_py.pods.fields import is_name, read_objects, read_text
from flanneld_py.pods.host_local import AddressStore
from flanneld_py.pods.label import read_label
from flanneld_py.pods.masquerade import drop_masquerade
from flanneld_py.pods.network_conf import BRIDGE

if TYPE_CHECKING:
    from flanneld_py.kernel.netlink_socket import NetlinkSocket
    from flanneld_py.pods.bridge_conf import StoreConf
    from flanneld_py.pods.fields import Fields
    from flanneld_py.pods.network_conf import NetworkConf

    Attachment = tuple[str, str]
    """Container and device; a device of "" stands for all of the container's."""

_KEYS = ("cni.dev/valid-attachments", "cni.dev/attachments")


def list_attachments(fields: Fields) -> Fields:
    """Return the part of a configuration that says which attachments are in use, empty if the runtime does not say."""
    return next(({key: fields[key]} for key in _KEYS if key in fields), {})


def parse_attachments(fields: Fields) -> frozenset[Attachment] | None:
    """Read which attachments are in use, None if the runtime does not say. Raises CniError."""
    given = list_attachments(fields)
    if not given:
        return None
    [key] = given
    return frozenset((read_text(item, "containerID"), read_text(item, "ifname")) for item in read_objects(given, key))


def collect(network: NetworkConf, valid: frozenset[Attachment], sock: NetlinkSocket) -> None:
    """Take away what belongs to no valid attachment. Raises CniError with all that went wrong, OSError."""
    store = parse_store_conf({"name": network.name, "ipam": network.ipam})
    containers = {container_id for container_id, _ in valid}
    problems = _delete_devices(network, valid, sock)
    with AddressStore(store) as addresses:
        stale = {
            (holder.container_id, holder.ifname)
            for holder in addresses.held()
            if (holder.container_id, holder.ifname) not in valid
            and (holder.ifname or holder.container_id not in containers)
        }
    for container_id, ifname in sorted(stale):
        try:
            drop(network, store, container_id, ifname, keeps_file=container_id in containers)
        except (CniError, OSError) as error:
            problems.append(f"{ifname} of {container_id}: {error}")
    _remove_files(network, containers)
    if guard.is_wanted(network.delegate):
        guard.drop_orphans(sock)
    if problems:
        raise CniError(errors.INTERNAL, "not all garbage could be collected", "; ".join(problems))


def _delete_devices(network: NetworkConf, valid: frozenset[Attachment], sock: NetlinkSocket) -> list[str]:
    problems = []
    for end in veth.read_near_ends(sock):
        label = read_label(end.alias)
        if label is None or label.network != network.name or label[1:] in valid:
            continue
        try:
            links.delete_link(sock, end.ifindex)
        except OSError as error:
            problems.append(f"the device of {label.container_id}: {error}")
    return problems


def drop(network: NetworkConf, store: StoreConf, container_id: str, ifname: str, *, keeps_file: bool) -> None:
    """Give back what a container's device holds, with all that its ADD kept. Raises CniError, OSError."""
    delegate = scratch.read_scratch(network.data_dir, container_id) or {}
    with AddressStore(store) as addresses:
        if delegate.get("ipMasq") is True:
            drop_masquerade(network.name, container_id, addresses.find(container_id, ifname))
        addresses.release(container_id, ifname)
    # The container may have a device in another network, too, whose ADD came later.
    if not keeps_file and delegate.get("name", network.name) == network.name:
        scratch.remove_scratch(network.data_dir, container_id)


def _remove_files(network: NetworkConf, containers: set[str]) -> None:
    # An ADD that was killed before it had an address left its scratch file only.
    try:
        names = os.listdir(network.data_dir)
    except FileNotFoundError:
        return
    for name in names:
        container_id = name.removeprefix(".")
        if container_id in containers or not is_name(container_id):
            continue
        kept = scratch.read_scratch(network.data_dir, container_id)
        is_ours = kept is not None and (kept.get("name"), kept.get("type")) == (network.name, BRIDGE)
        if is_ours or (kept is None and name != container_id):
            scratch.remove_scratch(network.data_dir, container_id)
