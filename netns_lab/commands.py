"""What each verb of `netns-lab` does; each returns the exit status.

The modules that build a lab are imported where they are used: `exec` and `ping` should start at once.
"""

import json
import os
import signal
import socket
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from netns_lab.boundary import read_holder, run_inside
from netns_lab.errors import EXIT_FAILED, EXIT_OK, UsageError
from netns_lab.faults import Lab
from netns_lab.folder import INSIDE, LabFolder, labs_folder
from netns_lab.names import addresses, find_place, node_end_points, pod_end_points, substitute
from netns_lab.pods import add_pod, delete_pod, find_pod, read_pods
from netns_lab.processes import execute
from netns_lab.progress import Progress
from netns_lab.topology import Topology, default_topology, load_topology, parse_topology
from netns_lab.variation import vary

DEFAULT_LAB = "default"


def run_up(arguments: Namespace) -> int:
    """Make a lab that stays."""
    from netns_lab.up import bring_up

    folder = _lab_folder(arguments.lab or DEFAULT_LAB)
    say = Progress()
    bring_up(folder, topology_values(arguments), say).let_go()
    say(f"the lab is up in {folder.root}; netns-lab down removes it")
    return EXIT_OK


def run_down(arguments: Namespace) -> int:
    """End a lab."""
    from netns_lab.up import take_down

    take_down(_lab_folder(arguments.lab or DEFAULT_LAB))
    return EXIT_OK


def run_demo(arguments: Namespace) -> int:
    """Show the main job in a lab that ends with the command."""
    from netns_lab.demo import demonstrate

    folder = _lab_folder(arguments.lab or f"demo-{os.getpid()}")
    return demonstrate(folder, topology_values(arguments), Progress())


def run_exec(arguments: Namespace) -> int:
    """Run a command somewhere in the lab."""
    words = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not words:
        raise UsageError("exec needs a command after the name: netns-lab exec NODE|POD -- COMMAND")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which the terminal tells, too

    def work(folder: LabFolder, topology: Topology) -> int:
        pods = read_pods(folder)
        place = find_place(arguments.place, topology, pods)
        execute(substitute(words, addresses(topology, pods)), place)

    return inside(arguments, work)


def run_ping(arguments: Namespace) -> int:
    """Ping all pairs."""
    from netns_lab.report import show_matrix

    def work(folder: LabFolder, topology: Topology) -> int:
        ends = node_end_points(topology) if arguments.nodes else pod_end_points(read_pods(folder))
        return show_matrix(ends, arguments.count)

    return inside(arguments, work)


def run_prove(arguments: Namespace) -> int:
    """Prove what the network carries between the first pods of all nodes."""
    from netns_lab.prove import prove_network

    return inside(arguments, lambda folder, topology: prove_network(folder, topology, arguments.bytes))


def run_status(arguments: Namespace) -> int:
    """Show what runs."""
    from netns_lab.report import show, status_tables
    from netns_lab.status import read_status

    def work(folder: LabFolder, topology: Topology) -> int:
        status = read_status(folder, topology)
        show(*status_tables(status))
        return EXIT_OK if status.good else EXIT_FAILED

    return inside(arguments, work)


def run_trace(arguments: Namespace) -> int:
    """Show the journey of one packet."""
    from netns_lab.trace import trace

    pcap = None if arguments.pcap is None else Path(arguments.pcap).resolve()

    def work(folder: LabFolder, _: Topology) -> int:
        return trace(read_pods(folder), arguments.source, arguments.destination, arguments.family, pcap)

    return inside(arguments, work)


def run_pod_add(arguments: Namespace) -> int:
    """Make a pod."""

    def work(folder: LabFolder, topology: Topology) -> int:
        taken = [*(node.name for node in topology.nodes), *(pod.name for pod in read_pods(folder))]
        if arguments.name in taken:
            raise UsageError(f"{arguments.name} is there already")
        node = topology.find_node(arguments.node)
        pod = add_pod(folder, arguments.name, node)
        print(f"{pod.name} on {pod.node} has {' and '.join(pod.addresses)}")
        return EXIT_OK

    return inside(arguments, work)


def run_pod_delete(arguments: Namespace) -> int:
    """Unmake a pod."""

    def work(folder: LabFolder, _: Topology) -> int:
        delete_pod(folder, find_pod(folder, arguments.name))
        return EXIT_OK

    return inside(arguments, work)


def run_web(arguments: Namespace) -> int:
    """Serve the page that shows the lab."""
    listening = socket.create_server(("127.0.0.1", arguments.port))  # here, where the browser is, not in the lab

    def work(folder: LabFolder, topology: Topology) -> int:
        from netns_lab.web.server import serve

        print(f"the lab is at http://127.0.0.1:{listening.getsockname()[1]}/ until Ctrl-C", flush=True)
        return serve(Lab(folder, topology), listening)

    return inside(arguments, work)


def run_fakes(arguments: Namespace) -> int:
    """Have so many Nodes that no machine stands behind."""
    from netns_lab.kubernetes import write_fakes

    def work(_: LabFolder, topology: Topology) -> int:
        if not topology.kubernetes:
            raise UsageError("this lab has no Kubernetes: netns-lab up --kubernetes makes one")
        write_fakes(topology.etcd[0], arguments.count)
        return EXIT_OK

    return inside(arguments, work)


def run_bench(arguments: Namespace) -> int:
    """Time daemons in labs of their own, which end with the command."""
    from netns_lab.bench.command import bench

    return bench(arguments)


def run_chaos(arguments: Namespace) -> int:
    """Make faults in a lab of its own, which ends with the command."""
    from netns_lab.chaos.command import chaos

    folder = _lab_folder(arguments.lab or f"chaos-{os.getpid()}")
    return chaos(folder, minutes=arguments.minutes, seed=arguments.seed, only=arguments.only, say=Progress())


def inside(arguments: Namespace, work: Callable[[LabFolder, Topology], int]) -> int:
    """Run `work` inside the lab that the arguments name. Raises NoLabError."""
    folder = _lab_folder(arguments.lab or DEFAULT_LAB)
    holder = read_holder(folder)
    topology = parse_topology(json.loads(folder.topology.read_text()))
    return run_inside(holder, lambda: work(LabFolder(INSIDE), topology))


def _lab_folder(name: str) -> LabFolder:
    return LabFolder(labs_folder(os.environ, os.geteuid()) / name)


def topology_values(arguments: Namespace) -> dict[str, object]:
    """Return the values of a topology file, or of the package's own, as the arguments change them.

    Raises UsageError and TopologyError.
    """
    values = load_topology(_topology_text(arguments.topology))
    if arguments.kubernetes:
        values["kubernetes"] = True
    if arguments.on_demand:
        values["on_demand"] = True
    return vary(values, arguments.backend, arguments.families, whole=arguments.topology is None)


def _topology_text(file: str | None) -> str:
    if file is None:
        return default_topology()
    try:
        return Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: {error}") from error
