"""Whether the uplink is what it was when the daemon chose it, and whether addresses of the host are in the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld_py.core.prefix import format_address, prefix_around
from flanneld_py.core.subnet_env import SubnetEnv
from flanneld_py.ctl.checks.finding import ERROR, Finding
from flanneld_py.kernel.address import SCOPE_GLOBAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flanneld_py.ctl.checks.facts import Facts

_BRIDGE = "cni0"


def judge(facts: Facts) -> Iterator[Finding]:
    """Yield what is wrong below the overlay."""
    yield from _judge_uplink(facts)
    yield from _judge_overlaps(facts)


def _judge_uplink(facts: Facts) -> Iterator[Finding]:
    uplink = (facts.daemon or {}).get("uplink")
    if uplink is None:
        return
    link = facts.view.link(uplink["name"])
    if link is None or not link.is_up:
        state = "gone" if link is None else "down"
        mend = "systemctl restart flanneld" if link is None else f"ip link set dev {uplink['name']} up"
        yield Finding("uplink-down", ERROR, f"the uplink {uplink['name']} is {state}", (mend,))
        return
    there = {format_address(one.family, one.address) for one in facts.view.addresses if one.ifindex == link.ifindex}
    for source in uplink["sources"]:
        if source not in there:
            told = f"{link.name} has not the address {source} any more, by which other nodes reach this one"
            yield Finding("uplink-address", ERROR, told, ("systemctl restart flanneld",))


def _judge_overlaps(facts: Facts) -> Iterator[Finding]:
    if not isinstance(facts.env, SubnetEnv):
        return
    ours = {link.ifindex for link in facts.view.devices}
    names = {link.ifindex: link.name for link in facts.view.links}
    for one in facts.view.addresses:
        if one.ifindex in ours or names.get(one.ifindex) in {_BRIDGE, "lo"} or one.scope != SCOPE_GLOBAL:
            continue
        attached = prefix_around(one.family, one.address, one.length)
        if attached in facts.env.subnets:
            continue  # the pods' bridge, whatever its name, such as Docker's
        for network in facts.env.networks:
            if network.overlaps(attached):
                shown = f"{format_address(one.family, one.address)}/{one.length}"
                name = names.get(one.ifindex, str(one.ifindex))
                told = f"{name} has {shown}, which overlaps the network {network}: pods there are not reached"
                yield Finding("overlap", ERROR, told, (f"ip address delete {shown} dev {name}",))
