"""Whether our devices are there and as they should be, and whether others are there that nobody looks after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld_py.core.subnet_env import SubnetEnv
from flanneld_py.ctl.checks.finding import ERROR, WARNING, Finding
from flanneld_py.kernel.checksum_offload import stalls_with_offload
from flanneld_py.kernel.vxlan import OVERHEAD, parent_index

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flanneld_py.ctl.checks.facts import Facts

_RESTART = "systemctl restart flanneld"


def judge(facts: Facts) -> Iterator[Finding]:
    """Yield what is wrong with devices."""
    yield from _judge_wanted(facts)
    yield from _judge_sizes(facts)
    yield from _judge_offload(facts)
    yield from _judge_stale(facts)
    yield from _judge_entries(facts)


def _judge_wanted(facts: Facts) -> Iterator[Finding]:
    for name, mac in facts.published.items():
        link = facts.view.link(name)
        if link is not None and link.mac.hex(":") != mac:
            told = f"{name} has the MAC {link.mac.hex(':')}, the lease says {mac}: others send to that one"
            yield Finding("tunnel-mac", ERROR, told, (f"ip link set dev {name} address {mac}",), safe=True)
    if isinstance(facts.env, SubnetEnv) and not facts.view.devices and facts.published:
        told = f"{', '.join(facts.published)} is not there: nothing reaches other nodes through a tunnel"
        yield Finding("tunnel-device", ERROR, told, (_RESTART,))
    for link in facts.view.devices:
        if not link.is_up:
            # Going down it lost its routes, which only the daemon can put back.
            yield Finding("tunnel-down", ERROR, f"{link.name} is down", (f"ip link set dev {link.name} up", _RESTART))


def _judge_sizes(facts: Facts) -> Iterator[Finding]:
    for link in facts.view.devices:
        if link.kind != "vxlan":
            continue
        parent = next((one for one in facts.view.links if one.ifindex == parent_index(link)), None)
        if parent is None:
            continue
        overhead = OVERHEAD[6 if "-v6" in link.name else 4]
        if link.mtu > parent.mtu - overhead:
            told = (
                f"{link.name} takes packets of {link.mtu} bytes, {parent.name} carries {parent.mtu - overhead} of them"
            )
            mend = f"ip link set dev {parent.name} mtu {link.mtu + overhead}"
            yield Finding("tunnel-mtu", ERROR, f"{told}: larger ones are lost", (mend,))


def _judge_offload(facts: Facts) -> Iterator[Finding]:
    if not stalls_with_offload(facts.release):
        return
    for name in sorted(facts.offloaded):
        told = f"{name} leaves checksums to the device, with which VXLAN of kernel {facts.release} stalls for a minute"
        mend = f"ethtool -K {name} tx-checksum-ip-generic off"
        yield Finding("offload", ERROR, told, (mend,), safe=True)


def _judge_stale(facts: Facts) -> Iterator[Finding]:
    if facts.daemon is None or "devices" not in facts.daemon:
        return
    own = {device["name"] for device in facts.daemon["devices"]} | facts.claimed
    for link in facts.view.devices:
        if link.name not in own:
            told = f"{link.name} is no device of the daemon that runs, and no other daemon of this node claims it"
            yield Finding("stale-device", WARNING, told, (f"ip link delete {link.name}",))


def _judge_entries(facts: Facts) -> Iterator[Finding]:
    wrong = [row for row in facts.peers if row["state"] != "ok"]
    if wrong:
        some = ", ".join(f"{row['subnet']} ({row['state']})" for row in wrong[:3])
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        told = f"the kernel lacks what leads to {some}{more}"
        yield Finding("peer-entries", ERROR, told, (_RESTART,) if facts.daemon is None else ("flannelctl status",))
