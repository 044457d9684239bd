"""DEL: what an ADD made for a container's device is taken down again, as far as it is there.

Idempotent. It bears a missing namespace, a missing scratch file and an ADD that was killed half-way, and goes on
after an error; only an address is not given back as long as the device that has it stands.
"""

from __future__ import annotations

import os

from flanneld_py.core.named_tuple import TYPE_CHECKING, NamedTuple
from flanneld_py.pods import errors, guard, scratch
from flanneld_py.pods.bridge_conf import parse_store_conf
from flanneld_py.pods.errors import CniError
from flanneld_py.pods.host_local import AddressStore
from flanneld_py.pods.masquerade import drop_masquerade
from flanneld_py.pods.network_conf import is_own
from flanneld_py.pods.pod_link import delete_device, disconnect_device

if TYPE_CHECKING:
    from collections.abc import Callable

    from flanneld_py.kernel.netlink_socket import NetlinkSocket
    from flanneld_py.pods.bridge_conf import StoreConf
    from flanneld_py.pods.fields import Fields
    from flanneld_py.pods.host_local import Holding
    from flanneld_py.pods.invocation import Invocation
    from flanneld_py.pods.network_conf import NetworkConf

    Later = Callable[[str, int, Callable[[], None]], None]
    """Takes a container, the index of its device on the host, and what is to be done when that is deleted."""


class Departure(NamedTuple):
    """Whose device goes, and what the ADD kept about it: nothing, where `is_kept` is false.

    The addresses are noted down in the first of `stores`, the one of what was kept; or else, where the container has a
    device in another network and that one's ADD kept it, in the second.
    """

    container_id: str
    ifname: str
    data_dir: str
    stores: tuple[StoreConf, ...]
    ip_masq: bool
    is_guarded: bool
    is_kept: bool


def plan_departure(call: Invocation, network: NetworkConf, delegate: Fields | None) -> Departure:
    """Say what a DEL has to take down; `delegate` is what the ADD kept. Raises CniError."""
    own = network.raw_delegate
    confs: dict[StoreConf, Fields] = {}
    for conf in (own,) if delegate is None else (delegate, own):
        try:
            confs.setdefault(parse_store_conf(conf), conf)
        except CniError:
            if conf is own and not confs:
                raise
    return Departure(
        call.container_id,
        call.ifname,
        network.data_dir,
        tuple(confs),
        any(conf.get("ipMasq") is True for conf in confs.values()),
        any(map(guard.is_wanted, confs.values())),
        delegate is not None,
    )


def detach(departure: Departure, namespace: int | None, sock: NetlinkSocket, later: Later | None) -> None:
    """Take a container off the bridge. `namespace` is its descriptor, None if it is gone.

    With `later` the device is only disconnected; deleting it takes the kernel 20 ms, and is left to `later`. Raises
    CniError with all that went wrong, OSError.
    """
    held = _find(departure) if departure.ip_masq or not departure.is_kept else {}
    problems = []
    near = None
    # Without file and address the device is not ours: an ADD that found it there must not have it deleted.
    if namespace is not None and (departure.is_kept or any(held.values())):
        try:
            if later is not None and _is_writable(departure):
                near = disconnect_device(sock, namespace, departure.ifname)
            if near is None:
                delete_device(namespace, departure.ifname)
        except OSError as error:
            problems.append(str(error))
    if departure.ip_masq:
        try:
            for store, addresses in held.items():
                drop_masquerade(store.network, departure.container_id, addresses)
        except OSError as error:
            problems.append(str(error))
    if problems:
        raise CniError(errors.INTERNAL, f"{departure.ifname} could not be taken down", "; ".join(problems))
    if near is None or later is None:
        _release(departure, lambda: guard.drop_orphans(sock))
    else:
        port = near.name
        later(departure.container_id, near.ifindex, lambda: _release(departure, lambda: guard.drop_guard(port)))


def _is_writable(departure: Departure) -> bool:
    """Say whether what is put off is likely to succeed: of a failure then, the caller would not hear."""
    folders = (departure.data_dir, *(f"{store.folder}/{store.network}" for store in departure.stores))
    return all(os.access(folder, os.W_OK) or not os.access(folder, os.F_OK) for folder in folders)


def _find(departure: Departure) -> dict[StoreConf, tuple[Holding, ...]]:
    found = {}
    for store in departure.stores:
        with AddressStore(store) as addresses:
            found[store] = addresses.find(departure.container_id, departure.ifname)
    return found


def _release(departure: Departure, drop_guard: Callable[[], None]) -> None:
    if departure.is_guarded:
        drop_guard()
    holds_more = []
    for store in departure.stores:
        with AddressStore(store) as addresses:
            holds_more.append(addresses.release(departure.container_id, departure.ifname))
    kept = scratch.read_scratch(departure.data_dir, departure.container_id)
    if not holds_more[0] and (kept is None or is_own(kept)):
        scratch.remove_scratch(departure.data_dir, departure.container_id)
