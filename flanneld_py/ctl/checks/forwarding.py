"""Whether the host forwards at all what comes and goes through our devices, and whom it lets through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld_py.core.prefix import IPV4, IPV6
from flanneld_py.core.subnet_env import SubnetEnv
from flanneld_py.ctl.checks.finding import ERROR, WARNING, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flanneld_py.core.prefix import Prefix
    from flanneld_py.ctl.checks.facts import Facts


def judge(facts: Facts) -> Iterator[Finding]:
    """Yield what keeps the host from forwarding."""
    networks = facts.env.networks if isinstance(facts.env, SubnetEnv) else ()
    yield from _judge_settings(facts, {network.family for network in networks} or {IPV4})
    yield from _judge_bridge(facts)
    yield from _judge_neighbours(facts)
    for network in networks:
        if network.family == IPV4:
            yield from _judge_iptables(facts, network)
    yield from _judge_barriers(facts)
    yield from _judge_input(facts)


def _judge_settings(facts: Facts, families: set[int]) -> Iterator[Finding]:
    for family, path in ((IPV4, "net/ipv4/ip_forward"), (IPV6, "net/ipv6/conf/all/forwarding")):
        if family in families and facts.setting(path) == "0":
            told = "the host forwards no packet between pods and other nodes"
            yield Finding("ip-forward", ERROR, f"{path} is 0: {told}", (f"sysctl -w {path}=1",), safe=True)
    for link in facts.view.devices:
        path = f"net/ipv4/conf/{link.name}/rp_filter"
        # The larger of the device's and the host's value counts; 1 is strict, 2 loose.
        values = [facts.setting(path), facts.setting("net/ipv4/conf/all/rp_filter")]
        if max(int(value or 0) for value in values) == 1:
            told = "packets are dropped whose way back leads elsewhere, as while a peer changes its way"
            yield Finding(
                "rp-filter", WARNING, f"{link.name} is checked strictly: {told}", (f"sysctl -w {path}=2",), safe=True
            )


def _judge_bridge(facts: Facts) -> Iterator[Finding]:
    path = "net/bridge/bridge-nf-call-iptables"
    value = facts.setting(path)
    told = "pods do not reach services whose other end is on their own node"
    if value == "0":
        yield Finding("bridge-nf", WARNING, f"{path} is 0: {told}", (f"sysctl -w {path}=1",), safe=True)
    elif value is None and facts.has_kubelet:
        load = ("modprobe br_netfilter", "echo br_netfilter > /etc/modules-load.d/br_netfilter.conf")
        yield Finding("bridge-nf", WARNING, f"br_netfilter is not loaded: {told}", load)


def _judge_neighbours(facts: Facts) -> Iterator[Finding]:
    for family, count in facts.resolved.items():
        limit = facts.setting(f"net/ipv{family}/neigh/default/gc_thresh3")
        if limit is not None and count > int(limit) * 0.9:
            told = f"the kernel keeps {count} IPv{family} neighbours of {limit}: beyond that it reaches no new ones"
            names = ((number, int(limit) * 4 >> (3 - number)) for number in (1, 2, 3))
            mends = (f"sysctl -w net.ipv{family}.neigh.default.gc_thresh{number}={value}" for number, value in names)
            yield Finding("neighbours", ERROR, told, tuple(mends), safe=True)


def _judge_iptables(facts: Facts, network: Prefix) -> Iterator[Finding]:
    rules = facts.filter_rules or ()
    if "-P FORWARD DROP" not in rules:
        return
    forward = [rule for rule in rules if rule.startswith(("-A FORWARD ", "-A FLANNEL-FWD "))]
    missing = [
        flag for flag in ("-s", "-d") if not any(f"{flag} {network} " in rule and "ACCEPT" in rule for rule in forward)
    ]
    if missing:
        mends = tuple(f"iptables -I FORWARD {flag} {network} -j ACCEPT" for flag in missing)
        told = f"iptables drops what is forwarded unless a rule accepts it, and none does for {network}"
        yield Finding("forward-policy", ERROR, told, mends, safe=True)


def _judge_barriers(facts: Facts) -> Iterator[Finding]:
    for barrier in facts.barriers or ():
        chain = f"the nftables chain {barrier.chain} stops"
        if barrier.port:
            told = f"{chain} what other nodes send to UDP port {barrier.port}: {barrier.reason}"
            yield Finding("tunnel-port", ERROR, told, (barrier.remedy,))
        else:
            told = f"{chain} what is forwarded for pods: {barrier.reason}"
            yield Finding("forward-chain", ERROR, told, (barrier.remedy,))


def _judge_input(facts: Facts) -> Iterator[Finding]:
    rules = [rule for rule in facts.filter_rules or () if rule.startswith(("-A INPUT ", "-P INPUT "))]
    for port in facts.ports:
        ours = [rule for rule in rules if f"--dport {port} " in rule]
        for rule in ours:
            if "-j DROP" in rule or "-j REJECT" in rule:
                told = f"iptables drops what other nodes send to UDP port {port}: {rule}"
                yield Finding("tunnel-port", ERROR, told, (f"iptables {rule.replace('-A ', '-D ', 1)}",))
        if "-P INPUT DROP" in rules and not any("-j ACCEPT" in rule for rule in ours):
            told = f"iptables drops what comes in unless a rule accepts it, and none does for UDP port {port}"
            yield Finding(
                "tunnel-port", ERROR, told, (f"iptables -I INPUT -p udp --dport {port} -j ACCEPT",), safe=True
            )
