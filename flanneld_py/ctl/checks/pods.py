"""Whether pods can be wired: the subnet file, the bridge, and the CNI's own files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from flanneld_py.core.prefix import format_address
from flanneld_py.core.subnet_env import SubnetEnv
from flanneld_py.ctl.checks.finding import ERROR, WARNING, Finding
from flanneld_py.kernel.address import SCOPE_GLOBAL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flanneld_py.core.prefix import Prefix
    from flanneld_py.ctl.checks.facts import Facts
    from flanneld_py.kernel.address import InterfaceAddress
    from flanneld_py.kernel.link import Link

_BRIDGE = "cni0"


def judge(facts: Facts) -> Iterator[Finding]:
    """Yield what keeps pods from being wired."""
    if isinstance(facts.env, str) and facts.daemon is not None and facts.daemon["ready"]:
        told = f"{facts.subnet_file}: {facts.env}: no pod can be wired"
        yield Finding("subnet-file", ERROR, told, ("systemctl restart flanneld",))
    if isinstance(facts.env, SubnetEnv):
        yield from _judge_bridge(facts, facts.env)
    yield from _judge_ports(facts)
    yield from _judge_files(facts)


def _judge_bridge(facts: Facts, env: SubnetEnv) -> Iterator[Finding]:
    bridge = facts.view.link(_BRIDGE)
    if bridge is None:
        return
    ports = [link for link in facts.view.links if link.master == bridge.ifindex]
    held = [one for one in facts.view.addresses if one.ifindex == bridge.ifindex and one.scope == SCOPE_GLOBAL]
    former = [one for one in held if not any(_lies_in(one, subnet) for subnet in env.subnets)]
    for one in former:
        shown = f"{format_address(one.family, one.address)}/{one.length}"
        own = ", ".join(map(str, env.subnets))
        told = f"{_BRIDGE} has {shown}, the lease is {own}: pods with addresses of the old one are not reached"
        # Without pods the bridge is made anew by the next one.
        mend = (f"ip link delete {_BRIDGE}",) if not ports else ("kubectl drain this node", f"ip link delete {_BRIDGE}")
        yield Finding("bridge-address", ERROR, told, mend, safe=not ports)
    if ports and not former:
        yield from _judge_gateway(bridge, held, env)
    large = [link for link in ports if link.mtu > env.mtu]
    if large:
        told = (
            f"{len(large)} pods ({large[0].name}) send packets of {large[0].mtu} bytes, the network carries {env.mtu}"
        )
        mends = tuple(f"ip link set dev {link.name} mtu {env.mtu}" for link in large)
        yield Finding("pod-mtu", WARNING, told, mends)


def _judge_gateway(bridge: Link, held: Sequence[InterfaceAddress], env: SubnetEnv) -> Iterator[Finding]:
    if not bridge.is_up:
        told = f"{_BRIDGE} is down: pods here reach nobody"
        yield Finding("bridge-down", ERROR, told, (f"ip link set dev {_BRIDGE} up",), safe=True)
    for subnet in env.subnets:
        if not any(_lies_in(one, subnet) for one in held):
            gateway = f"{format_address(subnet.family, subnet.address + 1)}/{subnet.length}"
            told = f"{_BRIDGE} lacks {gateway}, the gateway of the pods here: they reach nobody beyond this node"
            yield Finding("bridge-gateway", ERROR, told, (f"ip address add {gateway} dev {_BRIDGE}",), safe=True)


def _lies_in(one: InterfaceAddress, subnet: Prefix) -> bool:
    return subnet.family == one.family and subnet.holds(one.address)


def _judge_ports(facts: Facts) -> Iterator[Finding]:
    names = sorted(link.name for link in facts.view.links if link.ifindex in facts.unbridged)
    if not names:
        return
    told = f"{len(names)} pods ({names[0]}) are on no bridge and reach nobody, as after somebody deleted {_BRIDGE}"
    if facts.view.link(_BRIDGE) is None:
        yield Finding("pod-bridge", ERROR, told, ("start a pod on this node, which makes the bridge",))
    else:
        mends = tuple(f"ip link set dev {name} master {_BRIDGE}" for name in names)
        yield Finding("pod-bridge", ERROR, told, mends, safe=True)


def _judge_files(facts: Facts) -> Iterator[Finding]:
    install = f"flannelctl cni install --bin-dir {facts.bin_dir} --conf-dir {facts.conf_dir}"
    if facts.plugins is not None and "flannel" not in facts.plugins:
        yield Finding("cni-plugin", ERROR, f"{facts.bin_dir} has no executable flannel", (install,), safe=True)
    if facts.conflists is None:
        return
    flannels = [name for name, text in facts.conflists.items() if _is_flannels(text)]
    if not flannels:
        told = f"no configuration in {facts.conf_dir} names the plugin flannel"
        yield Finding("cni-configuration", ERROR, told, (install,), safe=True)
        return
    first = min(facts.conflists)
    if first not in flannels:
        told = f"runtimes take {first}, which comes before {flannels[0]} in {facts.conf_dir}"
        yield Finding("cni-order", WARNING, told, (f"mv {facts.conf_dir / first} {facts.conf_dir / first}.disabled",))


def _is_flannels(text: str) -> bool:
    try:
        told = json.loads(text)
    except ValueError:
        return False
    plugins = told.get("plugins", [told]) if isinstance(told, dict) else []
    return any(isinstance(plugin, dict) and plugin.get("type") == "flannel" for plugin in plugins)
