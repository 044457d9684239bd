"""The daemon: constructs all parts, joins them in one TaskGroup, and lets them go.

What it made in the kernel stays when it ends, so that traffic goes on; the lease stays as well.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from flanneld_py.agent.claim import claim_subnet_file
from flanneld_py.agent.entrances import keep_entrances, open_entrances
from flanneld_py.agent.former_backend import Former, Present, find_former, remove_former
from flanneld_py.agent.ground import GroundKeeper
from flanneld_py.agent.guard import Guard, make_guard
from flanneld_py.agent.lease_keeper import LeaseKeeper
from flanneld_py.agent.loop_trouble import LoopTrouble
from flanneld_py.agent.metrics_page import MetricsPage, Tunnels
from flanneld_py.agent.node_follower import NodeFollower
from flanneld_py.agent.reconciler import Reconciler
from flanneld_py.agent.retry import until_it_works
from flanneld_py.agent.rule_keeper import make_rule_keeper
from flanneld_py.agent.running_node import Announcement, RunningNode, devices_of, members_of
from flanneld_py.agent.startup import Node, heed_store, start_node, wait_for_claim
from flanneld_py.agent.status import NodeStatus
from flanneld_py.agent.subnet_file import SubnetFile, read_former_subnets
from flanneld_py.agent.watchdog import tell_watchdog
from flanneld_py.core.errors import KernelError, StoreError
from flanneld_py.core.lease_table import LeaseTable
from flanneld_py.kernel.miss import stop_asking
from flanneld_py.kernel.netlink_socket import NetlinkSocket
from flanneld_py.kernel.nexthop import has_nexthops
from flanneld_py.kernel.privileges import (
    CAP_NET_ADMIN,
    CAP_NET_BIND_SERVICE,
    CAP_NET_RAW,
    CAP_SYS_ADMIN,
    CAP_SYS_PTRACE,
    keep_capabilities,
)
from flanneld_py.store.kube_options import KubeOptions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld_py.agent.on_demand import OnDemand
    from flanneld_py.agent.options import Options
    from flanneld_py.agent.pod_service import PodService
    from flanneld_py.agent.prober import Prober
    from flanneld_py.core.prefix import Prefix
    from flanneld_py.kernel.device import Device
    from flanneld_py.store.etcd_options import EtcdOptions
    from flanneld_py.store.subnet_manager import SubnetManager

log = logging.getLogger(__name__)

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_NOTHING_TO_RELOAD = "SIGHUP: nothing to reload; the configuration is followed as it changes, flags take a restart"


async def run_daemon(options: Options) -> None:
    """Run until SIGTERM or SIGINT; SIGHUP is logged, as there is nothing to reload.

    Raises KernelError, ConfigError, ClaimedError or OSError where it cannot go on; whatever may still come
    (etcd, configuration, uplink, a free subnet) is waited for.
    """
    _drop_privileges(options)
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(LoopTrouble())
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        if task is not None:
            task.cancel()

    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, stop)
    # Unheard it would end the process, and systemd takes that for an end on purpose: it restarts nothing.
    loop.add_signal_handler(signal.SIGHUP, log.info, _NOTHING_TO_RELOAD)
    try:
        await _run(options)
    except asyncio.CancelledError:
        if not stopped:
            raise
        log.info("stopped by signal; what was programmed stays")


_KEPT = (CAP_NET_ADMIN, CAP_NET_RAW, CAP_NET_BIND_SERVICE)
"""For devices, routes and rules; for raw sockets; for a health port below 1024."""


def _drop_privileges(options: Options) -> None:
    # To serve a pod is to enter its namespace.
    kept = (*_KEPT, CAP_SYS_ADMIN, CAP_SYS_PTRACE) if options.cni_service else _KEPT
    try:
        if keep_capabilities(*kept):
            log.debug("capabilities given up: kept=%s", kept)
    except OSError as error:
        log.warning("capabilities not given up: %s", error)


async def _run(options: Options) -> None:
    rng = random.Random()  # noqa: S311 - for spreading load, not for secrets
    async with AsyncExitStack() as stack:
        claim = partial(claim_subnet_file, options.subnet_file)
        stack.enter_context(await wait_for_claim("subnet file", claim))
        status = NodeStatus()
        metrics = MetricsPage()
        entrances, pods = await open_entrances(stack, options, status, metrics)
        sock = stack.enter_context(NetlinkSocket())
        store = _open_store(options.store, rng)
        stack.push_async_callback(store.close)
        status.follow(store)
        metrics.add("store", store)
        options = await heed_store(options, store, rng)
        node = await start_node(stack, options, store, sock, rng=rng, tell=status.wait_for)
        on_demand = _make_on_demand(options, node, store, sock, rng)
        devices = devices_of(node, on_demand=on_demand is not None)
        if on_demand is None:
            _answer_no_more(sock, devices)
        guard = _make_guard(options, node, on_demand)
        former = _find_former(options, node, devices.values(), guard, sock)
        ground = _make_ground(options, node, devices, sock)
        reconciler = Reconciler(
            sock,
            (node.backend, guard),
            ground,
            LeaseTable(node.backend.read_peers, members_of(node), grace=0.0 if on_demand else options.prune_grace),
            resync_interval=options.resync_interval,
            rng=rng,
            on_demand=on_demand,
        )
        keeper = LeaseKeeper(store, node.request.attrs, node.held, options.renew_margin, rng)
        rules = make_rule_keeper(
            stack, node, _nets(node), devices.values(), wish=options.rules, resync=options.rules_resync
        )
        metrics.add("lease", keeper)
        metrics.add("reconciler", reconciler)
        metrics.add("tunnels", Tunnels(sock, ground))
        metrics.add("guard", guard)
        if on_demand:
            metrics.add("on demand", on_demand.counts)
        async with asyncio.TaskGroup() as group:
            group.create_task(guard.run(node.held.lease, reconciler), name="guard")
            group.create_task(rules.run(), name="rules")
            conditions = (reconciler.synced, rules.settled)
            told = Announcement(SubnetFile(options.subnet_file), options.rules.masquerade, conditions)
            running = RunningNode(node, store, ground, reconciler, keeper, on_demand, status, told, group)
            follower = NodeFollower(sock, store, options.uplink, node, running.go_on)
            status.begin(node, reconciler, keeper, rules=rules, guard=guard, follower=follower)
            running.start()
            if options.probe_interval:
                prober = _make_prober(options, running, rng)
                metrics.add("probe", prober)
                status.probes_by(prober)
                group.create_task(prober.run(), name="prober")
            group.create_task(remove_former(sock, former, reconciler.synced), name="former backend")
            group.create_task(follower.run(reconciler.underlay_changed, reconciler.identity_taken), name="follower")
            group.create_task(keep_entrances(entrances), name="entrances")
            group.create_task(_expect_pods(pods, reconciler), name="pods")
            group.create_task(tell_watchdog(lambda: not status.health()[1]), name="watchdog")
            group.create_task(_tell_store(store, reconciler, rng), name="announce to the store")


def _open_store(options: EtcdOptions | KubeOptions, rng: random.Random) -> SubnetManager:
    """Return the store, importing the client of this one alone."""
    if isinstance(options, KubeOptions):
        from flanneld_py.store.kube_subnet_manager import KubeSubnetManager

        return KubeSubnetManager(options, rng)
    from flanneld_py.store.etcd_subnet_manager import EtcdSubnetManager

    return EtcdSubnetManager(options, rng)


def _make_ground(options: Options, node: Node, devices: dict[int, Device], sock: NetlinkSocket) -> GroundKeeper:
    return GroundKeeper(
        sock,
        node.backend,
        node.config,
        devices,
        uplink=node.uplink.interface.ifindex,
        has_nexthops=has_nexthops(sock),
        blackholes={subnet: options.blackhole_route for _, subnet in _nets(node)},
    )


def _make_prober(options: Options, running: RunningNode, rng: random.Random) -> Prober:
    from flanneld_py.agent.prober import Prober

    return Prober(
        options.probe_port,
        options.probe_interval,
        lambda: running.node,
        running.reconciler,
        running.ground,
        rng=rng,
        # A peer that is probed through the tunnel would never be idle.
        probes_overlay=running.on_demand is None,
    )


def _make_guard(options: Options, node: Node, on_demand: OnDemand | None) -> Guard:
    return make_guard(
        options.guard,
        options.guard_allow,
        node.backend.claim_name,
        node.backend.tunnel_port,
        node.config,
        masqueraded=tuple(own for _, own in _nets(node)) if options.rules.masquerade else (),
        on_demand=on_demand is not None,
    )


def _make_on_demand(
    options: Options, node: Node, store: SubnetManager, sock: NetlinkSocket, rng: random.Random
) -> OnDemand | None:
    """Return what answers misses, if that is asked for and can be done here; says why it cannot.

    Where the store assigns the subnets, those of other nodes most often are as long as ours, whatever the configuration
    says.
    """
    if not options.on_demand:
        return None
    if not node.backend.answers_misses:
        log.warning("on demand is for vxlan: all peers of this network are programmed as they appear")
        return None
    from flanneld_py.agent.on_demand import OnDemand

    if store.assigns_subnets:
        networks = {network: own.length for network, own in _nets(node)}
    else:
        networks = {part.network: part.subnet_len for part in node.config.ranges}
    return OnDemand(sock, store.lease_finder(networks), networks, rng, idle=options.on_demand_idle)


def _find_former(options: Options, node: Node, devices: Iterable[Device], guard: Guard, sock: NetlinkSocket) -> Former:
    present = Present(
        {device.name for device in devices}, node.backend.nexthop_ids, node.backend.claim_name if guard.drivers else ""
    )
    networks = [part.network for part in node.config.ranges]
    return find_former(sock, present, networks, read_former_subnets(options.subnet_file))


def _answer_no_more(sock: NetlinkSocket, devices: dict[int, Device]) -> None:
    for family, device in devices.items():
        try:
            if stop_asking(sock, device.name, family):
                from flanneld_py.kernel.miss_limit import drop_limit

                drop_limit(device.name, family)
        except KernelError as error:
            log.warning("settings of on-demand operation stay: device=%s reason=%s", device.name, error)


def _nets(node: Node) -> list[tuple[Prefix, Prefix]]:
    """Return each network with our own subnet in it."""
    own = {subnet.family: subnet for subnet in node.held.lease.subnets}
    return [(part.network, own[part.network.family]) for part in node.config.ranges if part.network.family in own]


async def _expect_pods(pods: PodService | None, reconciler: Reconciler) -> None:
    """Prepare for the first pod, once it can come."""
    await reconciler.synced.wait()
    if pods is not None:
        await pods.prepare()


async def _tell_store(store: SubnetManager, reconciler: Reconciler, rng: random.Random) -> None:
    """Tell the store that packets are carried, once they are."""
    await reconciler.synced.wait()
    await until_it_works("store", store.announce_ready, StoreError, rng)
