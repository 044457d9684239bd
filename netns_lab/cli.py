"""The command `netns-lab`: arguments in, exit status out. The only module that ends the process.

Exit status: 0 all is well; 1 something failed, or a packet was lost; 2 wrong usage, an unknown name or a wrong
topology; 3 there is no such lab. `exec` gives the command's own.
"""

import argparse
import re
import sys
from collections.abc import Callable
from typing import TypeAlias

from netns_lab import commands
from netns_lab.bench.arguments import add_bench_arguments
from netns_lab.boundary import INTERRUPTED, heed_signals
from netns_lab.errors import EXIT_FAILED, LabError
from netns_lab.topology import IPV4, IPV6, NAME

LAB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
LARGEST_PORT = 65535
Arguments = argparse.Namespace
Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001  # it has no public name


def main() -> None:
    """Run the command and end the process."""
    heed_signals()
    try:
        arguments = build_parser().parse_args()
        status: int = arguments.run(arguments)
    except LabError as error:
        print(f"netns-lab: {error}", file=sys.stderr)
        status = error.exit_status
    except OSError as error:
        print(f"netns-lab: {error}", file=sys.stderr)
        status = EXIT_FAILED
    except KeyboardInterrupt:
        print("netns-lab: interrupted", file=sys.stderr)
        status = INTERRUPTED
    sys.exit(status)


def build_parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="netns-lab",
        description="A network lab in namespaces: nodes with a flanneld each, an underlay, etcd and pods.",
        epilog="Exit status: 0 all is well, 1 something failed or lost a packet, 2 wrong usage, 3 there is no such "
        "lab; exec gives the command's own.",
    )
    parser.add_argument("--lab", metavar="NAME", type=lab_name, help="which lab (default: default)")
    verbs: Verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_lab_verbs(verbs)
    _add_traffic_verbs(verbs)
    _add_watching_verbs(verbs)
    _add_pod_verbs(verbs.add_parser("pod", help="add or delete a pod", description="add or delete a pod"))
    return parser


def _add(verbs: Verbs, verb: str, run: Callable[[Arguments], int], text: str) -> argparse.ArgumentParser:
    command = verbs.add_parser(verb, help=text, description=text)
    command.set_defaults(run=run)
    return command


def _add_lab_verbs(verbs: Verbs) -> None:
    for command in (
        _add(verbs, "up", commands.run_up, "make a lab"),
        _add(verbs, "demo", commands.run_demo, "make a lab, ping all pairs of pods, explain one node, remove it"),
    ):
        _add_topology_arguments(command)
    _add(verbs, "down", commands.run_down, "end a lab and remove all of it")
    execute = _add(verbs, "exec", commands.run_exec, "run a command in a node, a pod, the router or etcd")
    execute.add_argument("place", metavar="NODE|POD")
    execute.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="names of nodes and pods become their addresses"
    )


def _add_traffic_verbs(verbs: Verbs) -> None:
    ping = _add(verbs, "ping", commands.run_ping, "ping all pairs of pods")
    ping.add_argument("--nodes", action="store_true", help="the nodes over the underlay in place of the pods")
    ping.add_argument("--count", type=positive, default=3, help="packets for each pair (default: 3)")
    told = "send datagrams, fragments, a stream and full packets between all nodes' pods"
    prove = _add(verbs, "prove", commands.run_prove, told)
    prove.add_argument(
        "--bytes", type=positive, default=10_000_000, help="in each TCP stream, its checksum compared (default: 10 MB)"
    )
    trace = _add(verbs, "trace", commands.run_trace, "send one marked packet from pod to pod and show where it passes")
    trace.add_argument("source", metavar="POD")
    trace.add_argument("destination", metavar="POD")
    trace.add_argument("-6", dest="family", action="store_const", const=IPV6, default=IPV4, help="over IPv6")
    trace.add_argument("--pcap", metavar="FILE", help="write the frames there, for Wireshark or tcpdump")


def _add_watching_verbs(verbs: Verbs) -> None:
    _add(verbs, "status", commands.run_status, "show what runs, and fail if something does not")
    told = "serve a page that shows the lab as it lives, and breaks it on request"
    page = _add(verbs, "web", commands.run_web, told)
    page.add_argument(
        "--port", type=port, default=8000, help="where to serve, on 127.0.0.1; 0: any that is free (default: 8000)"
    )
    told = "make random faults in a lab of five nodes, and say what did not hold"
    chaos = _add(verbs, "chaos", commands.run_chaos, told)
    chaos.add_argument("--minutes", type=minutes, default=2.0, help="how long (default: 2)")
    chaos.add_argument("--seed", type=int, default=1, help="the same faults in the same order (default: 1)")
    chaos.add_argument(
        "--only", metavar="TEXT", default="", help="only faults whose name has this in it: kernel, store"
    )
    add_bench_arguments(_add(verbs, "bench", commands.run_bench, "time a case for one daemon, or for two in turn"))
    told = "have so many Nodes in Kubernetes that no machine stands behind"
    fakes = _add(verbs, "fakes", commands.run_fakes, told)
    fakes.add_argument("count", metavar="COUNT", type=int, help="from 0 to 32768")


def _add_topology_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("topology", nargs="?", metavar="TOPOLOGY.toml", help="default: three nodes, two pods each")
    command.add_argument("--kubernetes", action="store_true", help="with a real kube-apiserver in place of etcd")
    command.add_argument("--on-demand", action="store_true", help="with flanneld --on-demand on every node")
    command.add_argument("--backend", metavar="NAME", help="vxlan, host-gw, …: in place of the topology's")
    families = command.add_mutually_exclusive_group()
    for flag, value, text in (("--ipv6", (IPV6,), "IPv6 only"), ("--dual", (IPV4, IPV6), "both families")):
        families.add_argument(flag, dest="families", action="store_const", const=value, help=f"{text}, underlay too")


def _add_pod_verbs(pod: argparse.ArgumentParser) -> None:
    verbs = pod.add_subparsers(required=True, metavar="add|del")
    add = _add(verbs, "add", commands.run_pod_add, "make a pod on a node")
    add.add_argument("name", metavar="POD", type=pod_name)
    add.add_argument("node", metavar="NODE")
    _add(verbs, "del", commands.run_pod_delete, "unmake a pod").add_argument("name", metavar="POD")


def lab_name(text: str) -> str:
    """Check a lab's name, which becomes a folder's. Raises ArgumentTypeError."""
    if not LAB_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r}: a lab's name is made of letters, digits, '.', '_' and '-'")
    return text


def pod_name(text: str) -> str:
    """Check a new pod's name. Raises ArgumentTypeError."""
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r}: a name is 1 to 15 of a-z, 0-9 and -, a letter first")
    return text


def port(text: str) -> int:
    """Parse a TCP port. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) > LARGEST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is no port")
    return int(text)


def minutes(text: str) -> float:
    """Parse a time over 0. Raises ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes over 0")
    return value


def positive(text: str) -> int:
    """Parse a number from 1 up. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 up")
    return int(text)
