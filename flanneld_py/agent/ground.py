"""What peers stand on: our own devices, and the host's routes around them.

Owns making and mending the devices and the settings that they need, and the view of the host that backends decide by.
"""

from __future__ import annotations

import logging
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

from flanneld_py.backends.backend import Ground
from flanneld_py.core.errors import KernelError
from flanneld_py.core.prefix import IPV4, IPV6
from flanneld_py.kernel.blackhole import drop_blackhole, ensure_blackhole
from flanneld_py.kernel.checksum_offload import ensure_no_offload
from flanneld_py.kernel.dataplane import Scope
from flanneld_py.kernel.device import ensure_device
from flanneld_py.kernel.forwarding import heed_routers, host_settings, lenient_check
from flanneld_py.kernel.host import read_routes
from flanneld_py.kernel.miss import ensure_asking
from flanneld_py.kernel.sysctl import ensure_sysctl

if TYPE_CHECKING:
    from flanneld_py.backends.backend import Backend
    from flanneld_py.core.network_config import NetworkConfig
    from flanneld_py.core.prefix import Prefix
    from flanneld_py.kernel.device import Device, Sysctl
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

log = logging.getLogger(__name__)

_NO_LENGTH = -1
"""No route has it, so none is ours for its length."""


class GroundKeeper:
    """Our devices and our view of the host; `scope` says what is ours in the kernel, `ground` what peers depend on."""

    def __init__(
        self,
        sock: NetlinkSocket,
        backend: Backend,
        config: NetworkConfig,
        devices: dict[int, Device],
        *,
        uplink: int,
        has_nexthops: bool,
        blackholes: dict[Prefix, bool] | None = None,
    ) -> None:
        """Take charge of the wanted `devices`, by the address family that each carries; `uplink` is an index.

        `blackholes` says of which subnets there is to be a blackhole route, and of which none.
        """
        self._sock = sock
        self._host_settings = [host_settings(part.network.family) for part in config.ranges]
        self._blackholes = blackholes or {}
        self._told: set[str] = set()
        self._want(backend, devices)
        self.scope = Scope(
            {},
            uplink,
            tuple(part.network for part in config.ranges),
            tuple(part.subnet_len if backend.adopts_routes else _NO_LENGTH for part in config.ranges),
            backend.nexthop_ids,
            has_nexthops,
        )
        self.ground = Ground({}, (), has_nexthops)
        self.device_is_new = False
        """Whether a device was made since the reconciler last took note: then nothing is on it yet."""

    @property
    def follows_underlay(self) -> bool:
        """Whether the way to a peer depends on the host's routes."""
        return self._backend.follows_underlay

    @property
    def names(self) -> dict[int, str]:
        """The names of our devices, by the address family that each carries."""
        return {family: device.name for family, device in self._devices.items()}

    def _want(self, backend: Backend, devices: dict[int, Device]) -> None:
        self._backend = backend
        self._devices = devices
        self._settings = [
            *self._host_settings,
            *(setting for device in devices.values() for setting in device.sysctls),
        ]

    def rebase(self, backend: Backend, devices: dict[int, Device], uplink: int) -> None:
        """Go on with these devices, of the same names, for another configuration or another uplink."""
        # Peers that the former backend has read may depend on it.
        backend.follows_underlay |= self._backend.follows_underlay
        self._want(backend, devices)
        self.scope = replace(self.scope, uplink=uplink)

    def mend_devices(self) -> bool:
        """Make or mend the devices and the host's settings; return whether a device had to be changed.

        Raises KernelError.
        """
        changed = False
        indexes: dict[int, int] = {}
        for family, device in self._devices.items():
            ensured = ensure_device(self._sock, device)
            indexes[family] = ensured.ifindex
            self._mend_offload(device)
            self._mend_asking(device, family, ensured.ifindex)
            changed |= ensured.created or bool(ensured.mended)
            self.device_is_new |= ensured.created
            if ensured.created:
                log.info("device made: name=%s mac=%s mtu=%d", device.name, device.mac.hex(":"), device.mtu)
            elif ensured.mended:
                log.info("device mended: name=%s what=%s", device.name, ",".join(ensured.mended))
        self._mend_settings()
        self._mend_blackholes()
        self.scope = replace(self.scope, devices=indexes)
        self.ground = replace(self.ground, devices=indexes)
        return changed

    def _mend_settings(self) -> None:
        """Have the settings as they should be. Where one must not be changed, say so once and go on."""
        self._heed_routers()
        for path, value in (*self._settings, *self._lenient_check()):
            name = "/".join(path)
            try:
                if ensure_sysctl(value, *path):
                    log.info("setting changed: %s=%s", name, value)
            except KernelError as error:
                if name not in self._told:
                    self._told.add(name)
                    log.warning("packets may be lost: %s; run sysctl -w %s=%s", error, name, value)

    def _lenient_check(self) -> tuple[Sysctl, ...]:
        device = self._devices.get(IPV4)
        try:
            return () if device is None else lenient_check(device.name)
        except KernelError as error:
            log.debug("rp_filter not looked at: reason=%s", error)
            return ()

    def _heed_routers(self) -> None:
        if not any(network.family == IPV6 for network in self.scope.networks):
            return
        try:
            name = socket.if_indextoname(self.scope.uplink)
            if heed_routers(name):
                log.info("setting changed: net/ipv6/conf/%s/accept_ra=2", name)
        except OSError as error:
            log.debug("uplink's accept_ra not looked at: reason=%s", error)

    def _mend_offload(self, device: Device) -> None:
        """Switch checksum offload off where VXLAN stalls with it."""
        if device.kind != "vxlan":
            return
        try:
            if ensure_no_offload(device.name):
                log.info(
                    "checksum offload switched off: device=%s reason=this kernel's VXLAN stalls with it", device.name
                )
        except KernelError as error:
            if device.name not in self._told:
                self._told.add(device.name)
                log.warning("traffic may stall: %s; run ethtool -K %s tx off", error, device.name)

    def _mend_asking(self, device: Device, family: int, ifindex: int) -> None:
        """Have the kernel ask us for what is sent to by the device, if it is to."""
        try:
            if device.asks and ensure_asking(self._sock, ifindex, device.name, family):
                log.info("the kernel asks for neighbours: device=%s", device.name)
        except KernelError as error:
            name = f"neighbours of {device.name}"
            if name not in self._told:
                self._told.add(name)
                log.warning("no peer can be found on demand: device=%s reason=%s", device.name, error)

    def _mend_blackholes(self) -> None:
        for subnet, wanted in self._blackholes.items():
            if ensure_blackhole(self._sock, subnet) if wanted else drop_blackhole(self._sock, subnet):
                log.info("blackhole route %s: subnet=%s", "made" if wanted else "removed", subnet)

    def look_at_underlay(self) -> bool:
        """Read the host's own routes, if peers depend on them; return whether they are others. Raises KernelError."""
        if not self.follows_underlay:
            return False
        routes = tuple(route for route in read_routes(self._sock) if not self.scope.owns(route))
        changed = routes != self.ground.routes
        self.ground = replace(self.ground, routes=routes)
        return changed
