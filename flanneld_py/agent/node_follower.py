"""Following what this node is made of while it runs: the cluster's configuration, and the host's uplink.

One way for every change: what the node should be now is worked out anew, and where that is something else, devices,
reconciler, lease and subnet file go on from it. The lease keeps its subnet. What cannot be followed is told.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flanneld_py.backends.registry import backend_keys, parse_backend
from flanneld_py.core.errors import ConfigError, KernelError
from flanneld_py.core.live_config import follow_config
from flanneld_py.core.network_config import parse_network_config
from flanneld_py.core.underlay import NoUplinkError, follow_uplink
from flanneld_py.kernel.host import read_interfaces, read_routes

if TYPE_CHECKING:
    from collections.abc import Callable

    from flanneld_py.agent.startup import Node
    from flanneld_py.core.network_config import NetworkConfig
    from flanneld_py.core.underlay import Uplink, UplinkWish
    from flanneld_py.kernel.netlink_socket import NetlinkSocket
    from flanneld_py.store.subnet_manager import SubnetManager

log = logging.getLogger(__name__)

_CALM = 0.3
"""Seconds that the host's network is given to come to rest: an address is taken away before another comes."""
_IDENTITY_REST = 60.0
"""Seconds between two changes of what we are known by: each costs the packets that are under way."""
_LONGEST_WAIT = 60.0
"""Seconds after which the host is looked at though nothing was told of it."""


class NodeFollower:
    """What this node is now, as `node`; `describe` says what of the configuration waits for a restart."""

    def __init__(
        self, sock: NetlinkSocket, store: SubnetManager, wish: UplinkWish, node: Node, apply: Callable[[Node], None]
    ) -> None:
        """Prepare; `apply` has the daemon go on as another node. It is called with a backend that has published."""
        self._sock = sock
        self._store = store
        self._wish = wish
        self._apply = apply
        self._refused = ""
        self._pending: tuple[str, ...] = ()
        self._uplink_trouble = ""
        self.node = node

    def describe(self) -> dict[str, Any]:
        """Return what is not followed, as plain JSON data."""
        return {
            "waits_for_restart": list(self._pending),
            "refused": self._refused or None,
            "uplink": self._uplink_trouble or None,
        }

    async def run(self, underlay_changed: asyncio.Event, identity_taken: asyncio.Event) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_config(), name="follow configuration")
            group.create_task(self._follow_host(underlay_changed), name="follow uplink")
            group.create_task(self._keep_identity(identity_taken), name="keep identity")

    async def _follow_config(self) -> None:
        async with aclosing(self._store.watch_config()) as texts:
            async for text in texts:
                try:
                    await self._take_config(text)
                except (ConfigError, KernelError) as error:
                    self._refused = str(error)
                    log.error("configuration not followed, the former one stays: %s", error)  # noqa: TRY400

    async def _take_config(self, text: str | None) -> None:
        if text is None:
            raise ConfigError("config", "it is gone from the store")
        told = parse_network_config(text, limits=not self._store.assigns_subnets)
        parse_backend(told)
        change = follow_config(self.node.config, told, backend_keys(told.backend_type))
        if change.pending and change.pending != self._pending:
            log.warning(
                "configuration changed, which takes effect at the next start: keys=%s", ",".join(change.pending)
            )
        if change.followed != self.node.config:
            await self._go_on(change.followed, self.node.uplink)
            log.info("configuration followed: backend=%s", dict(change.followed.backend))
        self._refused, self._pending = "", change.pending

    async def _follow_host(self, underlay_changed: asyncio.Event) -> None:
        while True:
            underlay_changed.clear()
            try:
                await self._look_at_host()
            except (NoUplinkError, KernelError, ConfigError) as error:
                if str(error) != self._uplink_trouble:
                    log.warning("uplink not followed, waiting for one that serves: reason=%s", error)
                self._uplink_trouble = str(error)
            else:
                self._uplink_trouble = ""
            try:
                async with asyncio.timeout(_LONGEST_WAIT):
                    await underlay_changed.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(_CALM)

    async def _look_at_host(self) -> None:
        current = self.node.uplink
        uplink = follow_uplink(current, self._wish, read_interfaces(self._sock), read_routes(self._sock))
        # Passing addresses of the interface, such as pods' service addresses, are nobody's business.
        if _essence(uplink) == _essence(current):
            return
        if uplink.sources != current.sources:
            # The store may have been spoken to from an address that is gone, and would not answer before a time-out.
            self._store.reconnect()
        await self._go_on(self.node.config, uplink)
        log.info(
            "uplink followed: name=%s public_ip=%s public_ipv6=%s mtu=%d",
            uplink.interface.name,
            uplink.public_ip,
            uplink.public_ipv6,
            uplink.interface.mtu,
        )

    async def _keep_identity(self, taken: asyncio.Event) -> None:
        """Publish another MAC where a second node has ours, as cloned machines do: no third could reach both."""
        while True:
            await taken.wait()
            try:
                await self._go_on(self.node.config, self.node.uplink, afresh=True)
            except (ConfigError, KernelError) as error:
                log.error("another node has our VTEP's MAC, and no new one could be taken: %s", error)  # noqa: TRY400
            else:
                # From now on leases are judged by the new one.
                taken.clear()
                log.warning("another node has our VTEP's MAC, so a new one was taken and published")
            await asyncio.sleep(_IDENTITY_REST)

    async def _go_on(self, config: NetworkConfig, uplink: Uplink, *, afresh: bool = False) -> None:
        """Go on as the node that these make, `afresh` with another identity. Raises ConfigError, KernelError."""
        backend = parse_backend(config)(uplink)
        await backend.prepare(self._sock)
        request = self.node.request
        earlier = backend.renew_identity(request.attrs, os.urandom) if afresh else request.attrs
        attrs = backend.publish(self._sock, earlier, os.urandom)
        self.node = replace(
            self.node, config=config, uplink=uplink, backend=backend, request=replace(request, attrs=attrs)
        )
        self._apply(self.node)


def _essence(uplink: Uplink) -> tuple[object, ...]:
    interface = uplink.interface
    public = (uplink.public_ip, uplink.public_ipv6)
    return (interface.ifindex, interface.mtu, uplink.sources, public)
