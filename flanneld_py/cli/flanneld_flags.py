"""flanneld's flags: Go flanneld's, with its names and defaults, and our own; and what they mean together."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flanneld_py.agent.options import Options
from flanneld_py.cli.flags import Flag, FlagError, parse_boolean, parse_choice, parse_integer, parse_seconds, parse_text
from flanneld_py.cli.log_format import FORMATS, parse_modules
from flanneld_py.core.errors import ConfigError
from flanneld_py.core.prefix import parse_prefix
from flanneld_py.core.probe import PORT
from flanneld_py.core.traffic_rules import RuleWish
from flanneld_py.core.underlay import UplinkWish
from flanneld_py.store.etcd_options import DEFAULT_ENDPOINTS, DEFAULT_PREFIX, EtcdOptions, parse_endpoints
from flanneld_py.store.kube_options import (
    DEFAULT_ANNOTATION_PREFIX,
    DEFAULT_NET_CONFIG,
    KubeOptions,
    parse_annotation_prefix,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flanneld_py.core.prefix import Address, Prefix


def _text(name: str, default: str, told: str) -> Flag:
    return Flag(name, default, parse_text, told)


def _texts(name: str, told: str) -> Flag:
    return Flag(name, (), parse_text, f"{told}; may be given more than once", repeatable=True)


def _switch(name: str, default: bool, told: str) -> Flag:
    return Flag(name, default, parse_boolean, told, is_boolean=True)


def _number(name: str, default: int, low: int, high: int, told: str) -> Flag:
    return Flag(name, default, parse_integer(low, high), told)


def _parse_address(version: int) -> Callable[[str], Address | None]:
    def parse(text: str) -> Address | None:
        if not text:
            return None
        try:
            address: Address = ipaddress.ip_address(text)
        except ValueError as error:
            raise ValueError(f"{text!r} is no address") from error
        if version and address.version != version:
            raise ValueError(f"{text} is no IPv{version} address")
        return address

    return parse


def _parse_pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression ({error})") from error


def _parse_file(text: str) -> str:
    if not Path(text).name:
        raise ValueError(f"{text!r} names no file; expected one like /run/flannel/subnet.env")
    return text


def _parse_guard(text: str) -> str:
    if text not in {"drop", "log", "off"}:
        raise ValueError(f"{text!r} is unknown; expected drop, log or off")
    return text


def _parse_prefixes(text: str) -> tuple[Prefix, ...]:
    return tuple(parse_prefix(part.strip()) for part in text.split(",") if part.strip())


FLAGS: tuple[Flag, ...] = (
    _text("etcd-endpoints", DEFAULT_ENDPOINTS, "comma list of etcd endpoints"),
    _text("etcd-prefix", DEFAULT_PREFIX, "etcd prefix of the network"),
    _text("etcd-keyfile", "", "key file of the client certificate"),
    _text("etcd-certfile", "", "client certificate file"),
    _text("etcd-cafile", "", "certificate authority file to check etcd by"),
    _text("etcd-username", "", "etcd user name"),
    _text("etcd-password", "", "etcd password; better --etcd-password-file or the variable, which ps does not show"),
    _text("etcd-password-file", "", "file that holds the etcd password"),
    _texts("iface", "interface name or address to use between hosts"),
    Flag(
        "iface-regex",
        (),
        _parse_pattern,
        "regular expression for the interface to use between hosts; may be given more than once",
        repeatable=True,
    ),
    Flag("iface-can-reach", None, _parse_address(0), "use the interface by which this address is reached"),
    Flag("public-ip", None, _parse_address(4), "address that other nodes send to"),
    Flag("public-ipv6", None, _parse_address(6), "IPv6 address that other nodes send to"),
    Flag("subnet-file", "/run/flannel/subnet.env", _parse_file, "file that tells pods' plugins the subnet"),
    _number("subnet-lease-renew-margin", 60, 1, 1439, "minutes before its end at which the lease is renewed"),
    _switch("ip-masq", False, "masquerade traffic that leaves the network"),
    _switch("ip-masq-fully-random-disable", False, "do not randomise the masquerade's ports"),
    _switch("ip-blackhole-route", False, "add a blackhole route for the own subnet"),
    _switch("iptables-forward-rules", True, "accept forwarded traffic of the network"),
    Flag("iptables-resync", 5.0, parse_seconds, "seconds between checks of the rules"),
    Flag("guard", "drop", _parse_guard, "what becomes of packets to the tunnel port from strangers: drop, log or off"),
    Flag(
        "guard-allow",
        (),
        _parse_prefixes,
        "comma list of prefixes from which any node may send through the tunnel; may be given more than once",
        repeatable=True,
    ),
    _switch(
        "cni-service",
        True,
        "serve the calls of the CNI plugin; without it CAP_SYS_ADMIN and CAP_SYS_PTRACE are given up",
    ),
    _text("healthz-ip", "0.0.0.0", "address of the health server"),
    _number("healthz-port", 0, 0, 65535, "port of the health server, 0 for none"),
    _switch("kube-subnet-mgr", False, "use the Kubernetes API in place of etcd"),
    _text("kube-api-url", "", "Kubernetes API server"),
    _text("kube-annotation-prefix", DEFAULT_ANNOTATION_PREFIX, "prefix of the Node's annotations"),
    _text("kubeconfig-file", "", "kubeconfig file"),
    _text("net-config-path", DEFAULT_NET_CONFIG, "configuration file with Kubernetes"),
    _switch("set-node-network-unavailable", True, "set the Node's NetworkUnavailable condition"),
    _switch("on-demand", False, "program a peer when it is first needed, and take it away when it is idle"),
    Flag("on-demand-idle", 600.0, parse_seconds, "seconds without a packet after which a peer is idle"),
    Flag("probe-interval", 0.0, parse_seconds, "seconds between probes of each peer (64 peers at a time); 0 for none"),
    _number("probe-port", PORT, 1, 65535, "UDP port that nodes probe each other by"),
    Flag("prune-grace", 300.0, parse_seconds, "seconds that peers stay which a restored or empty store lacks"),
    Flag("resync-interval", 60.0, parse_seconds, "seconds between full comparisons with the kernel"),
    Flag("log-format", "text", parse_choice(FORMATS), "how to write the log: text or json"),
    _number("v", 0, -(2**31), 2**31 - 1, "how much to log: 0 events, 4 and more details"),
    Flag("vmodule", (), parse_modules, "comma list of PATTERN=LEVEL: -v for single modules, as reconciler=4,etcd_*=4"),
    _text("log_backtrace_at", "", "accepted as by Go flanneld"),
    _switch("version", False, "print the version and exit"),
)


def make_options(values: Mapping[str, Any], environ: Mapping[str, str]) -> Options:
    """Put the values of the flags together; the environment names our Node. Raises FlagError naming the flag."""
    for name in ("resync-interval", "on-demand-idle", "iptables-resync"):
        if values[name] <= 0:
            raise FlagError(f"--{name}: it must be over 0 s")
    if 0 < values["probe-interval"] < 1:
        raise FlagError("--probe-interval: it must be 0, for no probes, or at least 1 s")
    return Options(
        store=_make_kube_options(values, environ) if values["kube-subnet-mgr"] else _make_etcd_options(values),
        uplink=UplinkWish(
            values["iface"],
            values["iface-regex"],
            values["iface-can-reach"],
            values["public-ip"],
            values["public-ipv6"],
        ),
        subnet_file=Path(values["subnet-file"]),
        renew_margin=values["subnet-lease-renew-margin"] * 60.0,
        rules=RuleWish(values["ip-masq"], not values["ip-masq-fully-random-disable"], values["iptables-forward-rules"]),
        rules_resync=values["iptables-resync"],
        blackhole_route=values["ip-blackhole-route"],
        guard=values["guard"],
        guard_allow=tuple(prefix for given in values["guard-allow"] for prefix in given),
        cni_service=values["cni-service"],
        healthz_ip=values["healthz-ip"],
        healthz_port=values["healthz-port"],
        resync_interval=values["resync-interval"],
        prune_grace=values["prune-grace"],
        on_demand=values["on-demand"],
        on_demand_idle=values["on-demand-idle"],
        probe_interval=values["probe-interval"],
        probe_port=values["probe-port"],
    )


def _make_etcd_options(values: Mapping[str, Any]) -> EtcdOptions:
    try:
        return EtcdOptions(
            endpoints=parse_endpoints(values["etcd-endpoints"]),
            prefix=values["etcd-prefix"],
            cafile=values["etcd-cafile"],
            certfile=values["etcd-certfile"],
            keyfile=values["etcd-keyfile"],
            username=values["etcd-username"],
            password=_read_password(values["etcd-password"], values["etcd-password-file"]),
        )
    except ConfigError as error:
        raise FlagError(f"--{error}") from error


def _make_kube_options(values: Mapping[str, Any], environ: Mapping[str, str]) -> KubeOptions:
    try:
        return KubeOptions(
            node_name=environ.get("NODE_NAME", ""),
            pod_name=environ.get("POD_NAME", ""),
            pod_namespace=environ.get("POD_NAMESPACE", ""),
            service_host=environ.get("KUBERNETES_SERVICE_HOST", ""),
            service_port=environ.get("KUBERNETES_SERVICE_PORT", ""),
            api_url=values["kube-api-url"],
            kubeconfig=values["kubeconfig-file"],
            annotation_prefix=parse_annotation_prefix(values["kube-annotation-prefix"]),
            net_config=Path(values["net-config-path"]),
            set_network_unavailable=values["set-node-network-unavailable"],
        )
    except ConfigError as error:
        raise FlagError(f"{error}" if error.key == "NODE_NAME" else f"--{error}") from error


def _read_password(given: str, file: str) -> str:
    if not file:
        return given
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise FlagError(f"--etcd-password-file: {error}") from error
