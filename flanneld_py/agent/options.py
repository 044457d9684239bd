"""What the daemon is told on its command line, complete and typed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from flanneld_py.core.prefix import Prefix
    from flanneld_py.core.traffic_rules import RuleWish
    from flanneld_py.core.underlay import UplinkWish
    from flanneld_py.store.etcd_options import EtcdOptions
    from flanneld_py.store.kube_options import KubeOptions


@dataclass(frozen=True, slots=True)
class Options:
    """The daemon's options; times in seconds, `healthz_port` 0 for no health server.

    `blackhole_route` asks for a blackhole route behind our own subnet; `guard` is drop, log or off, and `guard_allow`
    holds inner sources that any member may send with; `cni_service` says whether the CNI plugin's calls are
    served; `probe_interval` is 0 for no probes.
    """

    store: EtcdOptions | KubeOptions
    uplink: UplinkWish
    subnet_file: Path
    renew_margin: float
    rules: RuleWish
    rules_resync: float
    blackhole_route: bool
    guard: str
    guard_allow: tuple[Prefix, ...]
    cni_service: bool
    healthz_ip: str
    healthz_port: int
    resync_interval: float
    prune_grace: float
    on_demand: bool
    on_demand_idle: float
    probe_interval: float
    probe_port: int

    @property
    def socket_path(self) -> Path:
        """The control socket, beside the subnet file: `.sock` in place of `.env`."""
        return self.subnet_file.with_suffix(".sock")
