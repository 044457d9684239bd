"""What must be there before the daemon can carry packets, waited for in turn: configuration, uplink, device, lease."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from flanneld_py.agent.claim import ClaimedError, claim_device, hold
from flanneld_py.agent.retry import until_it_works
from flanneld_py.agent.subnet_file import read_former_subnets
from flanneld_py.backends.registry import parse_backend
from flanneld_py.core.errors import ConfigError, StoreError
from flanneld_py.core.network_config import parse_network_config
from flanneld_py.core.prefix import IPV4, IPV6, make_address
from flanneld_py.core.underlay import NoUplinkError, pick_uplink
from flanneld_py.kernel.host import read_interfaces, read_routes
from flanneld_py.store.subnet_manager import LeaseRequest

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from contextlib import AsyncExitStack
    from pathlib import Path

    from flanneld_py.agent.options import Options
    from flanneld_py.backends.backend import Backend
    from flanneld_py.core.allocator import SubnetPair
    from flanneld_py.core.lease import Lease, LeaseAttrs
    from flanneld_py.core.network_config import NetworkConfig
    from flanneld_py.core.underlay import Uplink
    from flanneld_py.kernel.netlink_socket import NetlinkSocket
    from flanneld_py.store.subnet_manager import HeldLease, SubnetManager

Claim = TypeVar("Claim")

log = logging.getLogger(__name__)

_CLAIM_PATIENCE = 30.0
"""Seconds that a second daemon waits for the first one to leave the device, as in a rolling update."""


@dataclass(frozen=True, slots=True)
class Node:
    """What this node is, once it has all it needs: its network, its way out, its backend and its lease."""

    config: NetworkConfig
    uplink: Uplink
    backend: Backend
    request: LeaseRequest
    held: HeldLease


async def wait_for_config(store: SubnetManager) -> tuple[NetworkConfig, Callable[[Uplink], Backend]]:
    """Return the first configuration that can be used; says what is wrong with each that cannot."""
    async for text in store.watch_config():
        if text is None:
            log.warning("waiting: for=configuration reason=there is none yet in the store")
            continue
        try:
            config = parse_network_config(text, limits=not store.assigns_subnets)
            make_backend = parse_backend(config)
        except ConfigError as error:
            log.error("waiting: for=a better configuration reason=%s", error)  # noqa: TRY400
            continue
        if not config.backend_given:
            log.warning("configuration has no Backend: it means udp, as with Go flannel")
        return config, make_backend
    raise AssertionError("unreachable: a store's configuration is watched without end")


async def heed_store(options: Options, store: SubnetManager, rng: random.Random) -> Options:
    """Return the options with the public addresses that the store has for this node, which go before the flags'."""
    public_ip, public_ipv6 = await until_it_works("store", store.read_public, StoreError, rng)
    wish = options.uplink
    if public_ip is not None:
        wish = replace(wish, public_ip=make_address(IPV4, public_ip))
    if public_ipv6 is not None:
        wish = replace(wish, public_ipv6=make_address(IPV6, public_ipv6))
    return replace(options, uplink=wish)


async def wait_for_uplink(options: Options, config: NetworkConfig, sock: NetlinkSocket, rng: random.Random) -> Uplink:
    """Return the uplink, once the host has one that fits."""

    async def pick() -> Uplink:
        return pick_uplink(
            options.uplink,
            read_interfaces(sock),
            read_routes(sock),
            ipv4=config.ipv4 is not None,
            ipv6=config.ipv6 is not None,
        )

    uplink = await until_it_works("uplink", pick, NoUplinkError, rng, longest=2.0)
    log.info(
        "uplink chosen: name=%s because=%s public_ip=%s public_ipv6=%s mtu=%d",
        uplink.interface.name,
        uplink.reason,
        uplink.public_ip,
        uplink.public_ipv6,
        uplink.interface.mtu,
    )
    return uplink


async def wait_for_claim(what: str, claim: Callable[[], Claim]) -> Claim:
    """Claim something, waiting for another daemon to leave it; raise ClaimedError if it stays."""
    deadline = asyncio.get_running_loop().time() + _CLAIM_PATIENCE
    said = False
    while True:
        try:
            return claim()
        except ClaimedError as error:
            if asyncio.get_running_loop().time() >= deadline:
                raise
            if not said:
                log.warning("waiting: for=%s reason=%s", what, error)
                said = True
        await asyncio.sleep(0.2)


def _read_file(subnet_file: Path) -> tuple[SubnetPair, ...]:
    """Return the subnets of the former subnet file as the one pair that they are, if there are any."""
    former = read_former_subnets(subnet_file)
    ipv4, ipv6 = (next((subnet for subnet in former if subnet.family == family), None) for family in (IPV4, IPV6))
    return ((ipv4, ipv6),) if ipv4 or ipv6 else ()


def _in_use(sock: NetlinkSocket, earlier: Lease | None) -> tuple[SubnetPair, ...]:
    """Return the subnets of our earlier lease if a device of this host has an address in them."""
    if earlier is None:
        return ()
    own = [entry.address for interface in read_interfaces(sock) for entry in interface.addresses]
    subnets = earlier.subnets
    is_in_use = any(
        address.version == subnet.family and subnet.holds(int(address)) for address in own for subnet in subnets
    )
    return ((earlier.subnet, earlier.ipv6_subnet),) if is_in_use else ()


async def obtain_lease(
    store: SubnetManager,
    config: NetworkConfig,
    backend: Backend,
    sock: NetlinkSocket,
    *,
    subnet_file: Path,
    rng: random.Random,
) -> tuple[LeaseRequest, HeldLease]:
    """Get our lease, close to our earlier one. Raises KernelError or ConfigError where the backend cannot work here."""
    await backend.prepare(sock)
    by_file = _read_file(subnet_file)
    identity = backend.publish(sock, None, os.urandom)
    earlier: Lease | None = await until_it_works("store", lambda: store.find_own(identity, by_file), StoreError, rng)
    attrs: LeaseAttrs = backend.publish(sock, earlier.attrs if earlier else None, os.urandom)
    request = LeaseRequest(config, attrs, (*by_file, *_in_use(sock, earlier)))
    held = await until_it_works("a lease", lambda: store.acquire(request), StoreError, rng)
    log.info("lease acquired: key=%s ttl=%s", held.key, held.ttl)
    return request, held


async def start_node(
    stack: AsyncExitStack,
    options: Options,
    store: SubnetManager,
    sock: NetlinkSocket,
    *,
    rng: random.Random,
    tell: Callable[[str], None],
) -> Node:
    """Wait for all that a node needs, telling for what each time; what it claims is let go with the stack."""
    tell("a configuration in the store")
    config, make_backend = await wait_for_config(store)
    tell("an uplink")
    uplink = await wait_for_uplink(options, config, sock, rng)
    backend = make_backend(uplink)
    name = backend.claim_name
    tell(f"the device {name}, which another daemon holds")
    hold(stack, await wait_for_claim(f"device {name}", partial(claim_device, name)))
    tell("a lease")
    request, held = await obtain_lease(store, config, backend, sock, subnet_file=options.subnet_file, rng=rng)
    return Node(config, uplink, backend, request, held)
