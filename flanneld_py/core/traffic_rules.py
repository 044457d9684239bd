"""What the host does to packets of the network that it forwards or sends: masquerading and acceptance, as data.

The rules are Go flannel's, in its order (pkg/trafficmngr/iptables). How they are written for nftables or iptables is
the business of the drivers in `kernel`.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.core.prefix import IPV4, IPV6, Prefix

if TYPE_CHECKING:
    from collections.abc import Iterable

KUBE_PROXY_MARK = 0x4000
"""The bit that kube-proxy puts on packets that it masquerades by itself."""
MULTICAST = {IPV4: Prefix(IPV4, 224 << 24, 4), IPV6: Prefix(IPV6, 0xFF << 120, 8)}


class Place(Enum):
    """Where packets meet a chain: when they are forwarded, or last of all before they leave."""

    FORWARD = auto()
    POSTROUTING = auto()


class Verdict(Enum):
    """What becomes of a packet; RETURN ends the chain and leaves the packet as it is."""

    ACCEPT = auto()
    RETURN = auto()
    MASQUERADE = auto()
    MASQUERADE_RANDOM = auto()


class Match(NamedTuple):
    """An address lies in a prefix, or with `outside` does not."""

    prefix: Prefix
    outside: bool = False


class Rule(NamedTuple):
    """What applies to packets of a source, a destination and a mark; None or 0 stands for any."""

    verdict: Verdict
    source: Match | None = None
    destination: Match | None = None
    mark: int = 0


class Chain(NamedTuple):
    """The rules of one place, in order."""

    place: Place
    rules: tuple[Rule, ...]


class RuleSet(NamedTuple):
    """All chains for a network; a place without a chain is to have none of ours."""

    network: Prefix
    chains: tuple[Chain, ...]

    @property
    def family(self) -> int:
        """The address family."""
        return self.network.family


class RuleWish(NamedTuple):
    """What the operator wants: masquerade what leaves the network, by random ports or not; accept what is forwarded."""

    masquerade: bool
    random_ports: bool
    forward: bool


def desired_rules(nets: Iterable[tuple[Prefix, Prefix]], wish: RuleWish) -> tuple[RuleSet, ...]:
    """Return the rules for networks, each given with our own subnet in it, one rule set a family."""
    return tuple(RuleSet(network, tuple(_chains(network, own, wish))) for network, own in nets)


def _chains(network: Prefix, own: Prefix, wish: RuleWish) -> Iterable[Chain]:
    if wish.masquerade:
        yield Chain(Place.POSTROUTING, _masquerade(network, own, random_ports=wish.random_ports))
    if wish.forward:
        yield Chain(
            Place.FORWARD,
            (Rule(Verdict.ACCEPT, source=Match(network)), Rule(Verdict.ACCEPT, destination=Match(network))),
        )


def _masquerade(network: Prefix, own: Prefix, *, random_ports: bool) -> tuple[Rule, ...]:
    within, ours, outside = Match(network), Match(own), Match(network, outside=True)
    unicast = Match(MULTICAST[network.family], outside=True)
    masquerade = Verdict.MASQUERADE_RANDOM if random_ports else Verdict.MASQUERADE
    return (
        # kube-proxy masquerades these itself; twice would be wrong on some kernels.
        Rule(Verdict.RETURN, mark=KUBE_PROXY_MARK),
        Rule(Verdict.RETURN, ours, within),
        Rule(Verdict.RETURN, within, ours),
        # From outside to a pod here, by way of this node or of another: the pod sees who it is.
        Rule(Verdict.RETURN, outside, ours),
        Rule(masquerade, within, unicast),
        # From this host to a pod elsewhere: by an address that the pod's node sends answers to over the network.
        Rule(masquerade, outside, within),
    )
