"""WireGuard devices and the table of what they let in and out; kernel and user space look alike from here on.

The table has an entry for each device, and one for each prefix that a peer may send from and is sent to: as in
WireGuard itself, a prefix belongs to one peer (cryptokey routing), and a peer is there as long as it has a prefix.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, Protocol

from flanneld_py.core.driver import driven_entry
from flanneld_py.core.entries import DrivenEntry
from flanneld_py.core.errors import KernelError
from flanneld_py.core.wireguard import (
    DeviceChange,
    PeerChange,
    format_wireguard_key,
    parse_wireguard_key,
    public_key_of,
)
from flanneld_py.kernel.device import Device
from flanneld_py.kernel.tun import KIND as TUN
from flanneld_py.kernel.wireguard_netlink import KIND, NetlinkControl, has_wireguard
from flanneld_py.kernel.wireguard_uapi import PROGRAM, UapiControl, find_program, start_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from flanneld_py.core.plan import Operation
    from flanneld_py.core.prefix import Prefix
    from flanneld_py.core.wireguard import Endpoint, WireguardPeer, WireguardState
    from flanneld_py.kernel.device import Sysctl

TABLE = "wireguard"
OVERHEAD = 80
"""Bytes of the outer headers, with room for IPv6: 40, UDP 8, WireGuard 32."""


class Control(Protocol):
    """Reads and changes one device."""

    def read(self) -> WireguardState:
        """Return what the device holds. Raises KernelError."""
        ...

    def change(self, change: DeviceChange) -> None:
        """Change the device; it may be half done when this raises KernelError."""
        ...


class Way(NamedTuple):
    """The peer that a prefix belongs to; `has_secret` says whether its preshared key is the network's."""

    public_key: str
    endpoint: Endpoint | None
    keepalive: int
    has_secret: bool = True


class Provider(NamedTuple):
    """Where WireGuard comes from: the kind of its devices, how they are made, None for rtnetlink, and controlled."""

    kind: str
    make: Callable[[str], None] | None
    control: Callable[[str], Control]

    def device(self, name: str, mtu: int, addresses: tuple[Prefix, ...], sysctls: tuple[Sysctl, ...]) -> Device:
        """Return a wanted device."""
        make = None if self.make is None else partial(self.make, name)
        return Device(name, self.kind, b"", mtu, addresses, (), sysctls, make)


def find_provider() -> Provider:
    """Return the kernel's WireGuard, else that in user space. Raises KernelError where there is neither."""
    if has_wireguard():
        return Provider(KIND, None, NetlinkControl)
    program = find_program()
    if program is None:
        reason = f"this kernel has none: modprobe wireguard, apt-get install {PROGRAM}, or choose another backend"
        raise KernelError(95, "wireguard", reason)
    return Provider(TUN, partial(start_process, program), UapiControl)


def device_entry(name: str, public_key: bytes, port: int) -> DrivenEntry:
    """Return the entry of a device of ours."""
    return DrivenEntry(TABLE, (name,), (format_wireguard_key(public_key), port))


def prefix_entry(name: str, prefix: Prefix, way: Way) -> DrivenEntry:
    """Return the entry that a prefix belongs to a peer."""
    return DrivenEntry(TABLE, (name, prefix), way)


class WireguardDriver:
    """Keeps the table of some devices, all with one private key, one preshared key."""

    table = TABLE
    batch = 50

    def __init__(self, controls: Mapping[str, Control], private_key: bytes, preshared_key: bytes) -> None:
        self._controls = controls
        self._private_key = private_key
        self._public_key = public_key_of(private_key)
        self._preshared_key = preshared_key
        self._holders: dict[tuple[str, Prefix], str] = {}
        self._written: dict[tuple[str, str], Endpoint | None] = {}

    def read(self) -> list[DrivenEntry]:
        """Return what the devices hold. Raises KernelError."""
        self._holders = {}
        found: list[DrivenEntry] = []
        for name, control in self._controls.items():
            state = control.read()
            is_ours = state.private_key == self._private_key
            public_key = self._public_key if is_ours else public_key_of(state.private_key)
            found.append(device_entry(name, public_key, state.port))
            for peer in state.peers:
                found += self._read_peer(name, peer)
        return found

    def _read_peer(self, name: str, peer: WireguardPeer) -> Iterator[DrivenEntry]:
        key = format_wireguard_key(peer.public_key)
        # A peer that has moved, or sits behind a NAT, is where its packets last came from: that is not to be undone.
        endpoint = self._written.get((name, key), peer.endpoint)
        way = Way(key, endpoint, peer.keepalive, peer.preshared_key == self._preshared_key)
        for prefix in peer.allowed:
            self._holders[name, prefix] = key
            yield prefix_entry(name, prefix, way)
        if not peer.allowed:
            yield DrivenEntry(TABLE, (name, key), None)

    def apply(self, operations: Sequence[Operation]) -> Mapping[int, tuple[int, str]]:
        """Carry out operations, those on one device by one request; if that fails, one by one."""
        failed: dict[int, tuple[int, str]] = {}
        for name, group in groupby(range(len(operations)), lambda index: driven_entry(operations[index]).key[0]):
            chosen = list(group)
            try:
                self._change(name, [operations[index] for index in chosen])
            except KernelError as error:
                if len(chosen) == 1:
                    failed[chosen[0]] = (error.errno or 0, error.strerror or "")
                    continue
                for index in chosen:
                    for problem in self.apply([operations[index]]).values():
                        failed[index] = problem
        return failed

    def _change(self, name: str, operations: Sequence[Operation]) -> None:
        private_key, port = None, None
        holders = dict(self._holders)
        uses = Counter(key for (device, _), key in holders.items() if device == name)
        changes: list[PeerChange] = []
        left: dict[str, None] = {}
        for operation in operations:
            _, (_, *prefix), value = driven_entry(operation)
            if not prefix:
                private_key, port = (None, None) if operation.delete else (self._private_key, value[1])
                continue
            if isinstance(prefix[0], str):
                left[prefix[0]] = None
                continue
            before = holders.pop((name, prefix[0]), None)
            if before is not None:
                uses[before] -= 1
                left[before] = None
            if not operation.delete:
                holders[name, prefix[0]] = value.public_key
                uses[value.public_key] += 1
                changes.append(self._make_peer(value, prefix[0]))
        changes += self._tidy(name, list(left), uses, holders)
        self._controls[name].change(DeviceChange(private_key, port, tuple(changes)))
        self._holders = holders
        self._note_endpoints(name, changes)

    def _make_peer(self, way: Way, prefix: Prefix) -> PeerChange:
        key = parse_wireguard_key(way.public_key)
        return PeerChange(key, False, self._preshared_key, way.endpoint, way.keepalive, (prefix,))

    def _tidy(
        self, name: str, keys: Sequence[str], uses: Counter[str], holders: Mapping[tuple[str, Prefix], str]
    ) -> Iterator[PeerChange]:
        """Remove the peers that no prefix belongs to any more, and take prefixes from those that keep others."""
        for key in keys:
            if not uses[key]:
                yield PeerChange(parse_wireguard_key(key), remove=True)
                continue
            allowed = tuple(prefix for (device, prefix), holder in holders.items() if (device, holder) == (name, key))
            yield PeerChange(parse_wireguard_key(key), allowed=allowed, replace_allowed=True)

    def _note_endpoints(self, name: str, changes: Sequence[PeerChange]) -> None:
        for change in changes:
            key = format_wireguard_key(change.public_key)
            if change.remove:
                self._written.pop((name, key), None)
            elif change.endpoint is not None:
                self._written[name, key] = change.endpoint
