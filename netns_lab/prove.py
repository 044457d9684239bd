"""`netns-lab prove`: every node's first pod sends everything to every other's, in each family, and a table tells."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from netns_lab.errors import EXIT_FAILED, EXIT_OK
from netns_lab.folder import LabFolder
from netns_lab.names import pod_end_points
from netns_lab.node import read_subnet_file
from netns_lab.places import node_place, plain_place
from netns_lab.pods import read_pods
from netns_lab.proof import Proof, prove, ways_between
from netns_lab.report import BAD, GOOD, show, show_matrix
from netns_lab.topology import ROUTER, Topology

ROUNDS = 3
MTU_KEY = "FLANNEL_MTU"


def prove_network(folder: LabFolder, topology: Topology, size: int) -> int:
    """Ping all pairs of pods, then prove the ways between nodes; return the exit status."""
    pods = read_pods(folder)
    status = show_matrix(pod_end_points(pods), ROUNDS)
    firsts = list({pod.node: pod for pod in reversed(pods)}.values())[::-1]
    mtus = {pod.name: int(read_subnet_file(folder, topology.find_node(pod.node))[MTU_KEY]) for pod in firsts}
    nodes = {pod.name: node_place(pod.node).network for pod in firsts}
    router = plain_place(ROUTER).network
    proofs = [prove(way, size) for way in ways_between(pod_end_points(firsts), mtus, nodes, router)]
    show(proof_table(proofs), proof_summary(proofs, size))
    return EXIT_FAILED if status != EXIT_OK or any(proof.failures for proof in proofs) else EXIT_OK


def proof_table(proofs: Sequence[Proof]) -> Table:
    """Write a row for each way."""
    table = Table(title="between nodes: datagrams of 1,400 and 4,000 bytes, full packets with DF, a TCP stream")
    for column in ("from", "to", "family", "MTU", "Mbit/s", "result"):
        table.add_column(column, no_wrap=column != "result")
    for proof in proofs:
        way = proof.way
        family, rate = f"IPv{way.source.family}", f"{proof.rate / 1e6:,.0f}"
        result = Text("; ".join(proof.failures), BAD) if proof.failures else Text("all arrived as sent", GOOD)
        table.add_row(way.source.name, way.destination.name, family, str(way.mtu), rate, result)
    return table


def proof_summary(proofs: Sequence[Proof], size: int) -> Text:
    """One line on all ways."""
    failed = sum(bool(proof.failures) for proof in proofs)
    if failed:
        return Text(f"{failed} of {len(proofs)} ways failed", BAD)
    return Text(f"all {len(proofs)} ways carry everything, {size:,} bytes in each stream", GOOD)
