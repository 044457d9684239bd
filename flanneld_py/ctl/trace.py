"""`flannelctl trace SRC DST`: what the kernel would do with a packet, hop by hop, and where it would be lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld_py.core.prefix import parse_address, parse_prefix
from flanneld_py.ctl.checks.facts import add_facts_flags, read_facts
from flanneld_py.ctl.checks.forwarding import judge
from flanneld_py.ctl.errors import CtlError
from flanneld_py.ctl.output import NOT_WELL, OK, Table, show, show_json
from flanneld_py.ctl.walk import Hop, Walk
from flanneld_py.kernel.netlink_socket import NetlinkSocket

if TYPE_CHECKING:
    import argparse

    from flanneld_py.ctl.checks.facts import Facts
    from flanneld_py.ctl.subparsers import Subparsers

_BRIDGE = "cni0"
_STOPS = frozenset({"ip-forward", "forward-policy", "forward-chain"})
"""Findings of the doctor that stop a packet which the host forwards."""


def register(subcommands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `trace` to the command line."""
    parser = subcommands.add_parser(
        "trace",
        help="what the kernel would do with a packet, hop by hop",
        description="Follows a packet through this node by asking the kernel; sends nothing. Exits with 0 when it "
        "gets through, with 3 when it would be lost.",
    )
    parser.add_argument("source", help="its source: the address of a pod, of this host, or of another node's pod")
    parser.add_argument("destination", help="its destination")
    add_facts_flags(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    try:
        (family, source), (other, destination) = parse_address(options.source), parse_address(options.destination)
    except ValueError as error:
        raise CtlError(str(error)) from error
    if family != other:
        raise CtlError(f"{options.source} and {options.destination} are of different address families")
    facts = read_facts(options)
    incoming = pick_incoming(facts, family, source)
    sock = NetlinkSocket()
    try:
        hops = list(Walk(sock, facts.view, family).follow(source, destination, incoming))
    finally:
        sock.close()
    if incoming and hops[-1].place != "this host":
        hops[1:1] = _judge_forwarding(facts)
    hops = hops[: next((index + 1 for index, hop in enumerate(hops) if hop.lost), len(hops))]
    arrival = "" if hops[-1].lost else _describe_arrival(facts, family, destination)
    lost = hops[-1].lost
    if options.json:
        show_json({"hops": [hop._asdict() for hop in hops], "lost": lost or None, "arrives": arrival or None})
    else:
        rows = [[hop.place, f"{hop.what}: LOST, {hop.lost}" if hop.lost else hop.what] for hop in hops]
        show([Table("", ("at", "what happens"), rows), *([arrival] if arrival else [])])
    return NOT_WELL if lost else OK


def pick_incoming(facts: Facts, family: int, source: int) -> str:
    """Return the device that a packet with this source comes in by, the empty text for one that this host sends."""
    if any((one.family, one.address) == (family, source) for one in facts.view.addresses):
        return ""
    env = facts.env
    if isinstance(env, str):
        raise CtlError(f"{facts.subnet_file}: {env}; what this node's pods are is told there")
    if any(subnet.family == family and subnet.holds(source) for subnet in env.subnets):
        return _BRIDGE
    peer = next((row for row in facts.peers if _holds(row["subnet"], family, source)), None)
    if peer is None or not peer["device"]:
        raise CtlError("the source is no address of this host, of its pods, or of a peer's pods")
    return str(peer["device"])


def _holds(subnet: str, family: int, address: int) -> bool:
    prefix = parse_prefix(subnet)
    return prefix.family == family and prefix.holds(address)


def _judge_forwarding(facts: Facts) -> list[Hop]:
    stops = [finding for finding in judge(facts) if finding.check in _STOPS]
    return [Hop("forwarding", "the host passes it on", f"{one.evidence}: {one.mend[0]}") for one in stops] or [
        Hop("forwarding", "the host passes it on")
    ]


def _describe_arrival(facts: Facts, family: int, destination: int) -> str:
    peer = next((row for row in facts.peers if _holds(row["subnet"], family, destination)), None)
    if peer is None:
        return ""
    return f"goes to the node {peer['public_ip']}, which has {peer['subnet']}; flannelctl trace there follows it on"
