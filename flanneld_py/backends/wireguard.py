"""wireguard: packets go encrypted through the kernel's WireGuard, or through a userspace one that the machine has.

Per peer and family: its subnet belongs to its public key, which is reached at its endpoint. One route a family leads
the whole network to the device.
"""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.backends.backend import Backend
from flanneld_py.backends.direct import read_families
from flanneld_py.core.entries import Route
from flanneld_py.core.errors import ConfigError, KernelError
from flanneld_py.core.lease import fold_keys
from flanneld_py.core.network_config import integer
from flanneld_py.core.peer import Peer, RefusedError
from flanneld_py.core.prefix import IPV4, IPV6, host_prefix, make_address
from flanneld_py.core.tunnel_mtu import read_underlay_mtu, tunnel_mtu
from flanneld_py.core.underlay import public_attrs
from flanneld_py.core.wireguard import (
    NO_KEY,
    DeviceChange,
    Endpoint,
    clamp_private_key,
    format_wireguard_key,
    parse_wireguard_key,
    public_key_of,
)
from flanneld_py.kernel.forwarding import tunnel_settings
from flanneld_py.kernel.link import read_link
from flanneld_py.kernel.route import default_metric
from flanneld_py.kernel.wireguard import (
    OVERHEAD,
    Provider,
    Way,
    WireguardDriver,
    device_entry,
    find_provider,
    prefix_entry,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flanneld_py.backends.backend import Ground
    from flanneld_py.core.entries import Entry
    from flanneld_py.core.lease import Lease, LeaseAttrs
    from flanneld_py.core.network_config import NetworkConfig
    from flanneld_py.core.underlay import Uplink
    from flanneld_py.kernel.device import Device
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

_TYPE = "wireguard"
KEYS = ("ListenPort", "ListenPortV6", "MTU", "PSK", "PersistentKeepaliveInterval", "Mode")
"""What its configuration has beside Type."""
_MODES = ("separate", "auto", "ipv4", "ipv6")
_NAMES = {IPV4: "flannel-wg", IPV6: "flannel-wg-v6"}
_KEY_FILE = Path("/run/flannel/wgkey")
_KEY_VARIABLE = "WIREGUARD_KEY_FILE"


class WireguardConfig(NamedTuple):
    """The keys of Backend for wireguard; `keepalive` in seconds, 0 for none, `mtu` in bytes, None for the uplink's."""

    ports: dict[int, int]
    mtu: int | None
    preshared_key: bytes
    keepalive: int
    mode: str


def parse_wireguard(config: NetworkConfig) -> Callable[[Uplink], WireguardBackend]:
    """Read the Backend part of the configuration. Raises ConfigError."""
    fields = config.backend
    mode = fields.get("mode", "separate")
    if mode not in _MODES:
        raise ConfigError("Mode", f"{mode!r} is not known here; expected one of: {', '.join(_MODES)}")
    port = integer(fields, "ListenPort", default=51820, low=1, high=65535)
    port6 = integer(fields, "ListenPortV6", default=51821, low=1, high=65535)
    if config.ipv4 and config.ipv6 and mode == "separate" and port == port6:
        raise ConfigError("ListenPortV6", f"{port6} is ListenPort as well; expected two ports, or another Mode")
    settings = WireguardConfig(
        {IPV4: port, IPV6: port6 if mode == "separate" else port},
        read_underlay_mtu(config, OVERHEAD),
        _parse_preshared_key(fields.get("psk", "")),
        integer(fields, "PersistentKeepaliveInterval", default=0, high=65535),
        mode,
    )
    return partial(WireguardBackend, config, settings)


def _parse_preshared_key(value: object) -> bytes:
    if value == "":
        return NO_KEY
    try:
        return parse_wireguard_key(value if isinstance(value, str) else "")
    except ValueError as error:
        # The value is a secret.
        raise ConfigError("PSK", f"{error}; expected one as `wg genpsk` makes it") from None


class WireguardBackend(Backend):
    """wireguard for one network and one uplink, from when `prepare` has been called on."""

    adopts_routes = False
    overhead = OVERHEAD

    def __init__(self, config: NetworkConfig, settings: WireguardConfig, uplink: Uplink) -> None:
        self._networks = {part.network.family: part.network for part in config.ranges}
        self._settings = settings
        self._uplink = uplink
        self._private_key = NO_KEY
        self._public_key = NO_KEY
        self._provider: Provider | None = None
        self.mtu = tunnel_mtu(settings.mtu or uplink.interface.mtu, OVERHEAD, self._networks)
        self.claim_name = self._device_name(config.ranges[0].network.family)

    @property
    def ports(self) -> Sequence[int]:
        """The UDP ports that our devices listen on."""
        return tuple(dict.fromkeys(self._ports_by_device().values()))

    def _ports_by_device(self) -> dict[str, int]:
        return {self._device_name(family): self._settings.ports[family] for family in reversed(self._networks)}

    def _device_name(self, family: int) -> str:
        return _NAMES[family if self._settings.mode == "separate" else IPV4]

    async def prepare(self, sock: NetlinkSocket) -> None:
        """Find WireGuard, and read or make our key. Raises KernelError, ConfigError."""
        self._provider = find_provider()
        self._private_key = read_private_key(Path(os.environ.get(_KEY_VARIABLE, _KEY_FILE)))
        self._public_key = public_key_of(self._private_key)
        names = dict.fromkeys(self._device_name(family) for family in self._networks)
        controls = {name: self._provider.control(name) for name in names}
        self.drivers = (WireguardDriver(controls, self._private_key, self._settings.preshared_key),)
        for name, control in controls.items():
            if read_link(sock, name) is not None:
                # Who learns our new key from the lease may use it at once.
                control.change(DeviceChange(self._private_key, None, ()))

    def publish(
        self, sock: NetlinkSocket, earlier: LeaseAttrs | None, random_bytes: Callable[[int], bytes]
    ) -> LeaseAttrs:
        """Return our addresses, public key and ports."""
        del sock, earlier, random_bytes
        data = {
            family: f'{{"PublicKey":"{format_wireguard_key(self._public_key)}","Port":{self._settings.ports[family]}}}'
            for family in self._networks
        }
        attrs = public_attrs(self._uplink, _TYPE)
        return attrs._replace(backend_data=data.get(IPV4), backend_v6_data=data.get(IPV6))

    def devices(self, lease: Lease) -> dict[int, Device]:
        """Return flannel-wg, and for IPv6 flannel-wg-v6 or the same one, with the base address of our subnet."""
        assert self._provider is not None  # noqa: S101 - `prepare` comes first
        subnets = {subnet.family: subnet for subnet in lease.subnets}
        names = {family: self._device_name(family) for family in self._networks}
        devices: dict[int, Device] = {}
        for family, name in names.items():
            carried = [each for each in names if names[each] == name]
            addresses = tuple(host_prefix(subnets[each].base) for each in carried)
            settings = tuple(setting for each in carried for setting in tunnel_settings(each, name))
            devices[family] = self._provider.device(name, self.mtu, addresses, settings)
        return devices

    def read_peers(self, lease: Lease) -> tuple[Peer, ...]:
        """Return another node's lease as peers; raise ValueError saying why it is none."""
        kind = lease.attrs.backend_type
        if kind != _TYPE:
            reason = f"its backend is {kind or 'udp'!r}, this node's is {_TYPE!r}: they have no way in common"
            raise RefusedError("other backend", reason)
        found = list(read_families(lease, self._networks))
        ways = {subnet.family: self._read_way(data, subnet.family, address) for subnet, address, data in found}
        return tuple(Peer(subnet, address, data=self._pick_way(subnet.family, ways)) for subnet, address, _ in found)

    def _read_way(self, data: str | None, family: int, address: int) -> Way:
        value = json.loads(data or "null")
        fields = fold_keys(value) if isinstance(value, dict) else {}
        text, port = fields.get("publickey"), fields.get("port") or self._settings.ports[family]
        if not isinstance(text, str):
            raise ValueError("its BackendData has no PublicKey")  # noqa: TRY004 - bad data, not a caller's wrong type
        if not isinstance(port, int) or not 0 < port < 1 << 16:
            raise ValueError("its BackendData has no good Port")
        public_key = parse_wireguard_key(text)
        if public_key == self._public_key:
            raise ValueError("its PublicKey is this node's own")
        return Way(format_wireguard_key(public_key), Endpoint(family, address, port), self._settings.keepalive)

    def _pick_way(self, family: int, ways: dict[int, Way]) -> Way:
        """Return the way to a subnet of a family: its own family's tunnel, or that over which the one tunnel goes."""
        if self._settings.mode == "separate":
            return ways[family]
        outer = {"ipv4": IPV4, "ipv6": IPV6}.get(self._settings.mode) or self._pick_outer(ways)
        return ways.get(outer, ways[family])

    def _pick_outer(self, ways: dict[int, Way]) -> int:
        """Return the family that packets most likely get through by, as Go flannel does."""
        if IPV4 not in ways or IPV6 not in ways:
            return min(ways)
        public = {family: _is_public(way.endpoint) for family, way in ways.items()}
        source = self._uplink.public_ipv6
        is_ipv6 = not public[IPV4] and public[IPV6] and source is not None and source.is_global
        return IPV6 if is_ipv6 else IPV4

    def desired(self, peer: Peer, ground: Ground) -> tuple[Entry, ...]:
        """Return the entry that a peer's subnet belongs to its key."""
        del ground
        assert isinstance(peer.data, Way)  # noqa: S101 - as `read_peers` made it
        return (prefix_entry(self._device_name(peer.subnet.family), peer.subnet, peer.data),)

    def standing(self, ground: Ground) -> Sequence[Entry]:
        """Return the key and port of our devices, and the routes that lead the networks there."""
        devices = [device_entry(name, self._public_key, port) for name, port in self._ports_by_device().items()]
        routes = [
            Route(network, default_metric(family), 0, 0, ground.devices[family], onlink=False)
            for family, network in self._networks.items()
        ]
        return (*devices, *routes)


def _is_public(endpoint: Endpoint | None) -> bool:
    return endpoint is not None and not make_address(endpoint.family, endpoint.address).is_private


def read_private_key(path: Path) -> bytes:
    """Read our private key, or make one that only root can read. Raises ConfigError, KernelError."""
    try:
        return parse_wireguard_key(path.read_text())
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise ConfigError(str(path), f"{error}; expected a private key as `wg genkey` makes it, or no file") from None
    key = clamp_private_key(os.urandom(32))
    fresh = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400)
        with os.fdopen(descriptor, "w") as file:
            file.write(format_wireguard_key(key))
        fresh.replace(path)
    except OSError as error:
        raise KernelError(error.errno or 0, f"write {path}", error.strerror or "") from error
    return key
