"""What the devices of a namespace have carried, from its /proc/net/dev (proc(5))."""

from dataclasses import dataclass
from pathlib import Path

from netns_lab.namespaces import in_network

TUNNEL_PREFIX = "flannel"  # all of flannel's backends name their devices so


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes and packets that a device has received and sent since it was made."""

    received_bytes: int
    received_packets: int
    sent_bytes: int
    sent_packets: int


def read_traffic(network: Path) -> dict[str, Traffic]:
    """Return each device's counters by its name. Raises OSError."""
    with in_network(network):
        return decode_traffic(Path("/proc/thread-self/net/dev").read_text())


def read_tunnels(network: Path) -> dict[str, Traffic]:
    """Return the counters of flannel's devices by their names. Raises OSError."""
    return {name: found for name, found in read_traffic(network).items() if name.startswith(TUNNEL_PREFIX)}


def decode_traffic(text: str) -> dict[str, Traffic]:
    """Read the text of /proc/net/dev: two lines of titles, then a device a line, 8 columns for each direction."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, columns = line.rpartition(":")
        numbers = [int(column) for column in columns.split()]
        found[name.strip()] = Traffic(numbers[0], numbers[1], numbers[8], numbers[9])
    return found
