"""The journey of one packet from pod to pod, by live captures on every node that it may pass."""

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from netns_lab.capture import Capture, Frame, write_pcap
from netns_lab.dissect import dissect
from netns_lab.errors import EXIT_FAILED, EXIT_OK, UsageError
from netns_lab.icmp import encode_echo_request, encode_echo_request6
from netns_lab.matrix import EndPoint, open_echo_socket
from netns_lab.names import pod_end_points
from netns_lab.places import node_place, plain_place
from netns_lab.pods import Pod
from netns_lab.report import show
from netns_lab.topology import IPV4, ROUTER

SECONDS = 3.0
MARK_SIZE = 32
_REQUESTS = {"ICMP echo request", "ICMPv6 echo request"}


def trace(pods: Sequence[Pod], source: str, destination: str, family: int, pcap: Path | None) -> int:
    """Send a marked packet, show where it was seen, and return the exit status: failed unless a reply came back.

    Raises UsageError for pods that there are not, and OSError.
    """
    ends = {end.name: end for end in pod_end_points(pods) if end.family == family}
    for name in (source, destination):
        if name not in ends:
            raise UsageError(f"no pod is named {name} and has an IPv{family} address; there are {', '.join(ends)}")
    nodes = {pod.name: pod.node for pod in pods}
    networks = {name: node_place(name).network for name in (nodes[source], nodes[destination])}
    networks |= {ROUTER: plain_place(ROUTER).network}
    networks |= {name: ends[name].network for name in (source, destination)}
    mark = secrets.token_bytes(MARK_SIZE)
    with Capture(networks) as capture:
        send_marked(ends[source], ends[destination].address, mark)
        frames = capture.take(lambda data: mark in data, lambda seen: is_back(seen, source), SECONDS)
    if pcap is not None:
        write_pcap(pcap, frames)
    there = [frame for frame in frames if is_request(frame)]
    back = [frame for frame in frames if not is_request(frame)]
    show(journey(f"from {source} to {destination}", there), verdict(there, back, source, destination))
    return EXIT_OK if is_back(frames, source) else EXIT_FAILED


def send_marked(source: EndPoint, destination: str, mark: bytes) -> None:
    """Send one echo request with the mark as its payload."""
    encode = encode_echo_request if source.family == IPV4 else encode_echo_request6
    with open_echo_socket(source.network, source.family) as echo:
        echo.sendto(encode(os.getpid() & 0xFFFF, 1, mark), (destination, 0))


def is_request(frame: Frame) -> bool:
    """Say whether a frame is on its way there, not back."""
    layers = dissect(frame.data)
    return bool(layers) and str(layers[-1]) in _REQUESTS


def is_back(frames: Sequence[Frame], source: str) -> bool:
    """Say whether the reply has been seen to arrive."""
    return any(frame.place == source and not frame.outgoing and not is_request(frame) for frame in frames)


def journey(title: str, frames: Sequence[Frame]) -> Table:
    """Write a row for each device that saw the packet, with the time since the first."""
    table = Table(title=title, title_justify="left")
    for column in ("µs", "at", "device", "", "frame"):
        table.add_column(column, justify="right" if column == "µs" else "left", no_wrap=column != "frame")
    for frame in frames:
        layers = "\n".join(map(str, dissect(frame.data)))
        since = (frame.at - frames[0].at) // 1000
        table.add_row(str(since), frame.place, frame.device, "out" if frame.outgoing else "in", layers)
    return table


def verdict(there: Sequence[Frame], back: Sequence[Frame], source: str, destination: str) -> str:
    """Say how it ended: when the reply was back, or where the packet was last seen."""
    if not there:
        return f"it was not seen at all: {source} has no way to {destination}"
    if back and back[-1].place == source:
        return f"the reply was back after {(back[-1].at - there[0].at) / 1e6:.3f} ms"
    last, what = (back[-1], "the reply") if back else (there[-1], "the packet")
    way = "leaving by" if last.outgoing else "coming in by"
    return f"LOST: {what} was last seen {way} {last.device} of {last.place}"
