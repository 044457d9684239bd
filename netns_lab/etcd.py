"""The lab's etcd: a real one, started in its namespace, and spoken to by its JSON gateway, which needs no client.

The gateway (etcd's documentation, "gRPC gateway") takes keys and values in base64.
"""

import http.client
import json
from base64 import b64encode
from collections.abc import Mapping

from netns_lab.errors import LabError
from netns_lab.folder import LabFolder
from netns_lab.namespaces import in_network
from netns_lab.places import make_plain_place, plain_place
from netns_lab.processes import Program, run_to_end
from netns_lab.programs import find_etcd
from netns_lab.topology import ETCD, EtcdMember, Topology
from netns_lab.underlay import plug_in
from netns_lab.waiting import wait_until

CONFIG_KEY = "/coreos.com/network/config"
NO_FSYNC = "--unsafe-no-fsync"
START_SECONDS = 30.0
CALL_SECONDS = 5.0


def endpoints(topology: Topology) -> str:
    """Return the members' client URLs, as flanneld's --etcd-endpoints takes them."""
    return ",".join(member.client_url for member in topology.etcd)


def member_program(folder: LabFolder, member: EtcdMember) -> Program:
    """Return the process of a member."""
    return Program(member.name, folder.etcd(member.name))


def start_etcd(folder: LabFolder, topology: Topology) -> None:
    """Start all members and wait until the cluster serves. Raises LabError."""
    make_plain_place(ETCD)
    addresses = [member.address for member in topology.etcd]
    plug_in(ETCD, plain_place(ETCD).network, topology.etcd_underlay, addresses, topology.mtu)
    for member in topology.etcd:
        start_member(folder, topology, member)
    programs = [member_program(folder, member) for member in topology.etcd]

    def healthy() -> bool:
        for program in programs:
            program.require()
        return all(is_healthy(member) for member in topology.etcd)

    wait_until(f"etcd at {endpoints(topology)} to serve", healthy, START_SECONDS)


def start_member(folder: LabFolder, topology: Topology, member: EtcdMember) -> None:
    """Start one member, on the data that it had, if any. Raises LabError."""
    etcd, place, program = str(find_etcd()), plain_place(ETCD), member_program(folder, member)
    help_text = run_to_end([etcd, "--help"], place, seconds=START_SECONDS)
    # A lab's data need not outlive the machine, and other work on its disk should not slow the lab down (3.5 or newer).
    extra = [NO_FSYNC] if NO_FSYNC in help_text.stdout + help_text.stderr else []
    program.start([*member_command(etcd, member, topology, program), *extra], place)


def member_command(etcd: str, member: EtcdMember, topology: Topology, program: Program) -> list[str]:
    """Return the command line of one member."""
    cluster = ",".join(f"{other.name}={other.peer_url}" for other in topology.etcd)
    return [
        etcd,
        f"--name={member.name}",
        f"--data-dir={program.folder / 'data'}",
        f"--listen-client-urls={member.client_url}",
        f"--advertise-client-urls={member.client_url}",
        f"--listen-peer-urls={member.peer_url}",
        f"--initial-advertise-peer-urls={member.peer_url}",
        f"--initial-cluster={cluster}",
        "--logger=zap",
        "--log-level=warn",
    ]


def call(member: EtcdMember, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, object]:
    """One request to a member, from beside it. Raises OSError or LabError."""
    connection = http.client.HTTPConnection(str(member.address.ip), 2379, timeout=CALL_SECONDS)
    try:
        with in_network(plain_place(ETCD).network):
            connection.connect()
        connection.request(method, path, body=json.dumps(body) if body is not None else None)
        response = connection.getresponse()
        text = response.read().decode()
    except http.client.HTTPException as error:
        raise LabError(f"{member.name}: {path}: {error}") from error
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise LabError(f"{member.name}: {path}: {response.status} {text.strip()}")
    answer: dict[str, object] = json.loads(text)
    return answer


def is_healthy(member: EtcdMember) -> bool:
    """Tell whether the member serves and sees a leader."""
    try:
        return call(member, "GET", "/health").get("health") == "true"
    except (OSError, LabError):
        return False


def put(topology: Topology, key: str, value: str) -> None:
    """Write a key. Raises LabError."""
    body = {"key": b64encode(key.encode()).decode(), "value": b64encode(value.encode()).decode()}
    try:
        call(topology.etcd[0], "POST", "/v3/kv/put", body)
    except OSError as error:
        raise LabError(f"{topology.etcd[0].name}: writing {key}: {error}") from error
