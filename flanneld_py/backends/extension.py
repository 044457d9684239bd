"""extension: the operator's own commands carry the packets; this node leases a subnet and tells them of the peers.

Per peer: one entry, for which SubnetAddCommand has run. Commands may take their time: nothing waits for them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.backends.backend import Backend
from flanneld_py.backends.direct import read_families
from flanneld_py.core.backoff import backoff_delay
from flanneld_py.core.driver import driven_entry
from flanneld_py.core.entries import DrivenEntry
from flanneld_py.core.errors import ConfigError
from flanneld_py.core.peer import Peer, RefusedError
from flanneld_py.core.prefix import format_address
from flanneld_py.core.underlay import public_attrs
from flanneld_py.kernel.command import CommandError, run_command

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flanneld_py.backends.backend import Ground
    from flanneld_py.core.driver import Feedback
    from flanneld_py.core.entries import Entry
    from flanneld_py.core.lease import Lease, LeaseAttrs
    from flanneld_py.core.network_config import NetworkConfig
    from flanneld_py.core.plan import Operation
    from flanneld_py.core.prefix import Prefix
    from flanneld_py.core.underlay import Uplink
    from flanneld_py.kernel.device import Device
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

log = logging.getLogger(__name__)

_TYPE = "extension"
KEYS = ("PreStartupCommand", "PostStartupCommand", "SubnetAddCommand", "SubnetRemoveCommand")
"""What its configuration has beside Type."""
_LIMIT = 30.0
"""Seconds that a command may take."""
_AT_ONCE = 4
"""Commands that run side by side."""


class Commands(NamedTuple):
    """The commands, in the order of KEYS; empty where there is none."""

    pre_startup: str
    post_startup: str
    subnet_add: str
    subnet_remove: str


def parse_extension(config: NetworkConfig) -> Callable[[Uplink], ExtensionBackend]:
    """Read the Backend part of the configuration. Raises ConfigError."""

    def command(key: str) -> str:
        text = config.backend.get(key.lower(), "")
        if not isinstance(text, str):
            raise ConfigError(key, f"{text!r} is no string; expected a command")
        return text.strip()

    return partial(ExtensionBackend, config, Commands(*map(command, KEYS)))


class ExtensionBackend(Backend):
    """extension for one network and one uplink."""

    claim_name = _TYPE
    adopts_routes = False

    def __init__(self, config: NetworkConfig, commands: Commands, uplink: Uplink) -> None:
        self._families = {part.network.family: part.network for part in config.ranges}
        self._commands = commands
        self._uplink = uplink
        self._data: str | None = None
        self._driver = CommandDriver(commands)
        self.drivers = (self._driver,)
        self.mtu = uplink.interface.mtu

    async def prepare(self, sock: NetlinkSocket) -> None:
        """Run PreStartupCommand: what it says is published. Raises ConfigError."""
        del sock
        if self._commands.pre_startup:
            try:
                said = await run_command(self._commands.pre_startup, {}, "", _LIMIT)
            except CommandError as error:
                raise ConfigError("PreStartupCommand", f"{error.strerror}; expected one that succeeds") from error
            self._data = json.dumps(said)

    def publish(
        self, sock: NetlinkSocket, earlier: LeaseAttrs | None, random_bytes: Callable[[int], bytes]
    ) -> LeaseAttrs:
        """Return our addresses, and what PreStartupCommand said."""
        del sock, earlier, random_bytes
        return public_attrs(self._uplink, _TYPE)._replace(backend_data=self._data)

    def devices(self, lease: Lease) -> dict[int, Device]:
        """Return nothing: the commands make what they need."""
        del lease
        return {}

    def read_peers(self, lease: Lease) -> tuple[Peer, ...]:
        """Return another node's lease as one peer, for it is told of once; raise ValueError saying why it is none."""
        kind = lease.attrs.backend_type
        if kind != _TYPE:
            raise RefusedError("other backend", f"its backend is {kind or 'udp'!r}, this node's is {_TYPE!r}")
        data = json.loads(lease.attrs.backend_data or '""')
        if not isinstance(data, str):
            raise ValueError("its BackendData is no string")  # noqa: TRY004 - bad data, not a caller's wrong type
        return tuple(Peer(subnet, ip, data=data) for subnet, ip, _ in read_families(lease, self._families))[:1]

    def desired(self, peer: Peer, ground: Ground) -> tuple[Entry, ...]:
        """Return the entry that SubnetAddCommand is run for."""
        del ground
        return (DrivenEntry(_TYPE, (peer.subnet,), (peer.public_ip, peer.data)),)

    async def run(self, lease: Lease, feedback: Feedback) -> None:
        """Run PostStartupCommand, until it succeeds; then the commands for peers as they come and go."""
        networks, attrs = list(self._families.values()), lease.attrs
        variables = {
            "NETWORK": str(networks[0]),
            "SUBNET": _text(lease.subnet),
            "IPV6SUBNET": _text(lease.ipv6_subnet),
            "PUBLIC_IP": "" if attrs.public_ip is None else format_address(4, attrs.public_ip),
            "PUBLIC_IPV6": "" if attrs.public_ipv6 is None else format_address(6, attrs.public_ipv6),
        }
        attempts = 0
        while self._commands.post_startup:
            try:
                said = await run_command(self._commands.post_startup, variables, "", _LIMIT)
            except CommandError as error:
                attempts += 1
                log.warning("waiting: for=PostStartupCommand reason=%s", error.strerror)
                await asyncio.sleep(backoff_delay(attempts, random.random()))  # noqa: S311 - spreads load, no secret
            else:
                log.info("command run: name=PostStartupCommand output=%s", said)
                break
        await self._driver.run(feedback)


def _text(subnet: Prefix | None) -> str:
    return "" if subnet is None else str(subnet)


class CommandDriver:
    """The peers that the commands know of; for each peer one command at a time, and only for its latest state."""

    table = _TYPE
    batch = 500

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._told: dict[tuple[object, ...], object] = {}
        self._waiting: dict[tuple[object, ...], Operation] = {}
        self._running: set[tuple[object, ...]] = set()
        self._wake = asyncio.Event()

    def read(self) -> list[DrivenEntry]:
        """Return the peers that have been told of, or are about to be; none after a start."""
        return [DrivenEntry(_TYPE, key, value) for key, value in self._told.items()]

    def apply(self, operations: Sequence[Operation]) -> Mapping[int, tuple[int, str]]:
        """Have the commands run; each takes the place of one for the same peer that still waits."""
        for operation in operations:
            _, key, value = driven_entry(operation)
            if operation.delete:
                self._told.pop(key, None)
            else:
                self._told[key] = value
            self._waiting[key] = operation
        self._wake.set()
        return {}

    async def run(self, feedback: Feedback) -> None:
        """Run what waits, some side by side, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                for key in [key for key in self._waiting if key not in self._running]:
                    if len(self._running) >= _AT_ONCE:
                        break
                    self._running.add(key)
                    group.create_task(self._run_one(self._waiting.pop(key), feedback))
                await self._wake.wait()

    async def _run_one(self, operation: Operation, feedback: Feedback) -> None:
        _, key, (public_ip, data) = driven_entry(operation)
        text = self._commands.subnet_remove if operation.delete else self._commands.subnet_add
        variables = {"SUBNET": str(key[0]), "PUBLIC_IP": format_address(key[0].family, public_ip)}
        try:
            said = await run_command(text, variables, data, _LIMIT) if text else ""
        except CommandError as error:
            self._take_back(operation)
            if key not in self._waiting:
                feedback.refused(operation, error.errno or 0, error.strerror or "")
        else:
            log.debug("command run: subnet=%s output=%s", key[0], said)
        finally:
            self._running.discard(key)
            self._wake.set()

    def _take_back(self, operation: Operation) -> None:
        """Have the table say what is true, unless something newer is about to come true."""
        _, key, value = driven_entry(operation)
        if key in self._waiting:
            return
        if operation.delete:
            self._told[key] = value
        else:
            self._told.pop(key, None)
