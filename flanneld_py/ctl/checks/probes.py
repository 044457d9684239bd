"""Whether packets get to the other nodes, as the daemon's probes have found, and what cannot be told without them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flanneld_py.core.probe_results import LOSSY, NARROW, NO_ANSWER, NO_OVERLAY, OVERLAY, UNDERLAY
from flanneld_py.ctl.checks.finding import ERROR, WARNING, Finding
from flanneld_py.kernel.vxlan import udp_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flanneld_py.ctl.checks.facts import Facts

_NAMED = 3
_SET_MTU = frozenset({"vxlan", "wireguard"})
"""Backends whose configuration has an MTU."""
_ACCEPTED = {"udp": "udp --dport 8285", "wireguard": "udp --dport 51820", "ipip": "4"}
"""What a firewall has to let in for each backend but vxlan, whose port its device tells; as iptables' -p."""


def judge(facts: Facts) -> Iterator[Finding]:
    """Yield what is wrong on the ways to other nodes."""
    by_state: dict[str, list[Mapping[str, Any]]] = {}
    for peer in _probed(facts):
        by_state.setdefault(peer["state"], []).append(peer)
    if by_state.get(NO_OVERLAY):
        yield _tunnel_cut(facts, by_state[NO_OVERLAY])
    if by_state.get(NARROW):
        yield _path_mtu(facts, by_state[NARROW])
    if by_state.get(LOSSY):
        peers = by_state[LOSSY]
        told = _name(peers, lambda one: ", ".join(f"{way} {one[way]['lost']} of {one[way]['sent']}" for way in _WAYS))
        yield Finding("path-loss", WARNING, f"probes are lost on the way to {told}", ("flannelctl probe",))


_WAYS = (UNDERLAY, OVERLAY)


def list_unknown(facts: Facts) -> list[str]:
    """Return what could not be looked into, and why."""
    if facts.daemon is None or not facts.peers:
        return []
    what = "whether the tunnel's packets, and large ones, get to"
    if not facts.probes:
        return [f"{what} other nodes: flanneld sends probes with --probe-interval=10"]
    if facts.probes["problem"]:
        return [f"{what} other nodes: {facts.probes['problem']}"]
    silent = [peer for peer in _probed(facts) if peer["state"] == NO_ANSWER]
    if not silent:
        return []
    return [
        f"{what} {_name(silent)}: no probe is answered there (Go flannel, no --probe-interval, or the port is closed)"
    ]


def _probed(facts: Facts) -> Sequence[Mapping[str, Any]]:
    return facts.probes["peers"] if facts.probes else ()


def _name(peers: Sequence[Mapping[str, Any]], tell: Any = None) -> str:
    some = ", ".join(peer["public_ip"] + (f" ({tell(peer)})" if tell else "") for peer in peers[:_NAMED])
    return f"{some} and {len(peers) - _NAMED} more" if len(peers) > _NAMED else some


def _tunnel_cut(facts: Facts, peers: Sequence[Mapping[str, Any]]) -> Finding:
    kind = facts.backend
    ports = sorted({udp_port(link) for link in facts.view.devices if link.kind == "vxlan"})
    accepted = f"udp --dport {ports[0]}" if ports else _ACCEPTED.get(kind)
    told = f"{_name(peers)} answers by the underlay and not through the overlay ({kind})"
    if accepted is None:
        mend = (
            f"let packets with addresses of {facts.networks} pass between the nodes (in a cloud: its route and checks)"
        )
        return Finding("tunnel-cut", ERROR, f"{told}: packets between pods are lost between the nodes", (mend,))
    mends = [f"on {peer['public_ip']}: iptables -I INPUT -p {accepted} -j ACCEPT" for peer in peers[:_NAMED]]
    mends.append(f"let {accepted.replace(' --dport', ' port')} pass in the network between")
    return Finding("tunnel-cut", ERROR, f"{told}: a firewall there or between drops the tunnel's packets", tuple(mends))


def _path_mtu(facts: Facts, peers: Sequence[Mapping[str, Any]]) -> Finding:
    def tell(peer: Mapping[str, Any]) -> str:
        narrow = [way for way in _WAYS if 0 < peer[way]["mtu"] < peer[way]["wanted"]]
        return ", ".join(f"{way}: {peer[way]['mtu']} bytes of {peer[way]['wanted']}" for way in narrow)

    carried = min(_carried(peer) for peer in peers)
    if facts.backend in _SET_MTU:
        mend = f"flannelctl net set Backend.MTU={carried}"
    else:
        mend = f"ip link set dev {(facts.daemon or {})['uplink']['name']} mtu {carried}, on all nodes"
    is_lost = any(0 < peer[OVERLAY]["mtu"] < peer[OVERLAY]["wanted"] for peer in peers)
    become = "are lost" if is_lost else "are taken apart on the way"
    told = f"the path to {_name(peers, tell)} carries less than the network sends: large packets {become}"
    return Finding("path-mtu", ERROR if is_lost else WARNING, told, (mend,))


def _carried(peer: Mapping[str, Any]) -> int:
    """Return the largest packet of the underlay, in bytes, that gets to a peer."""
    overhead = peer[UNDERLAY]["wanted"] - peer[OVERLAY]["wanted"]
    sizes = [peer[UNDERLAY]["mtu"], peer[OVERLAY]["mtu"] + overhead if peer[OVERLAY]["mtu"] else 0]
    return int(min(size for size in sizes if size))
