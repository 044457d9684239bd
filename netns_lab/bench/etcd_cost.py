"""What the stage's etcd costs: its process, and what it tells of itself at /metrics."""

import http.client

from netns_lab.bench.daemon import Cost, read_process_cost
from netns_lab.bench.stage import Stage
from netns_lab.errors import LabError
from netns_lab.namespaces import in_network
from netns_lab.places import plain_place
from netns_lab.topology import ETCD

CALL_SECONDS = 10.0
WATCHERS = "etcd_debugging_mvcc_watcher_total"


def read_etcd_cost(stage: Stage) -> Cost:
    """Return the CPU and memory of the etcd process. Raises LabError if it has ended."""
    pid = stage.etcd_pid
    if pid is None:
        raise LabError("etcd has ended")
    return read_process_cost(pid)


def count_watches(stage: Stage) -> int:
    """Return how many watches etcd serves."""
    connection = http.client.HTTPConnection(str(stage.topology.etcd[0].address.ip), 2379, timeout=CALL_SECONDS)
    try:
        with in_network(plain_place(ETCD).network):
            connection.connect()
        connection.request("GET", "/metrics")
        return int(parse_metric(connection.getresponse().read().decode(), WATCHERS))
    except http.client.HTTPException as error:
        raise LabError(f"etcd's metrics: {error}") from error
    finally:
        connection.close()


def parse_metric(text: str, name: str) -> float:
    """Return the value of a metric without labels (Prometheus' text format). Raises LabError if it is not there."""
    for line in text.splitlines():
        words = line.split()
        if words[:1] == [name]:
            return float(words[1])
    raise LabError(f"etcd tells no {name}")
