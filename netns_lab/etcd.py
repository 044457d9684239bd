"""The lab's etcd: a real one, started in its namespace, and spoken to by its JSON gateway, which needs no client.

The gateway (etcd's documentation, "gRPC gateway") takes keys and values in base64.
"""

import http.client
import json
from base64 import b64encode
from collections.abc import Mapping
from functools import cache

from netns_lab.errors import LabError
from netns_lab.etcd_security import PASSWORD, ROOT, USER, make_certificates, member_flags
from netns_lab.folder import LabFolder
from netns_lab.namespaces import in_network
from netns_lab.places import make_plain_place, plain_place
from netns_lab.processes import Program, run_to_end
from netns_lab.programs import find_etcd
from netns_lab.topology import ETCD, EtcdMember, Topology
from netns_lab.underlay import plug_in
from netns_lab.waiting import wait_until

PREFIX = "/coreos.com/network"
CONFIG_KEY = f"{PREFIX}/config"
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
    if topology.etcd[0].secure:
        make_certificates(folder, topology)
    for member in topology.etcd:
        start_member(folder, topology, member)
    programs = [member_program(folder, member) for member in topology.etcd]

    def healthy() -> bool:
        for program in programs:
            program.require()
        return all(is_healthy(member) for member in topology.etcd)

    wait_until(f"etcd at {endpoints(topology)} to serve", healthy, START_SECONDS)
    if topology.etcd[0].secure:
        _make_users(topology.etcd[0])


def start_member(folder: LabFolder, topology: Topology, member: EtcdMember) -> None:
    """Start a member, for the first time or with the data that it has."""
    program = member_program(folder, member)
    program.start(member_command(folder, member, topology, program), plain_place(ETCD))


@cache
def _find_extra_flags(etcd: str) -> tuple[str, ...]:
    told = run_to_end([etcd, "--help"], plain_place(ETCD), seconds=START_SECONDS)
    # A lab's data need not outlive the machine, and other work on its disk should not slow the lab down (3.5 or newer).
    return (NO_FSYNC,) if NO_FSYNC in told.stdout + told.stderr else ()


def _make_users(member: EtcdMember) -> None:
    """Have the cluster want a user of everybody from now on. Raises LabError or OSError."""
    for user in (ROOT, USER):
        call(member, "POST", "/v3/auth/user/add", {"name": user, "password": PASSWORD})
        call(member, "POST", "/v3/auth/role/add", {"name": user})
        call(member, "POST", "/v3/auth/user/grant", {"user": user, "role": user})
    permission: dict[str, object] = {"permType": "READWRITE", **keys_below(PREFIX + "/")}
    call(member, "POST", "/v3/auth/role/grant", {"name": USER, "perm": permission})
    call(member, "POST", "/v3/auth/enable", {})


def member_command(folder: LabFolder, member: EtcdMember, topology: Topology, program: Program) -> list[str]:
    """Return the command line of one member."""
    etcd = str(find_etcd())
    cluster = ",".join(f"{other.name}={other.peer_url}" for other in topology.etcd)
    doors = [member.client_url]
    if member.secure:
        doors.append("http://{}:{}".format(*member.gateway))
    return [
        etcd,
        f"--name={member.name}",
        f"--data-dir={program.folder / 'data'}",
        f"--listen-client-urls={','.join(doors)}",
        f"--advertise-client-urls={member.client_url}",
        f"--listen-peer-urls={member.peer_url}",
        f"--initial-advertise-peer-urls={member.peer_url}",
        f"--initial-cluster={cluster}",
        "--logger=zap",
        "--log-level=warn",
        *(member_flags(folder) if member.secure else ()),
        *_find_extra_flags(etcd),
    ]


def encode(text: str) -> str:
    """Return a key or a value as the gateway takes it."""
    return b64encode(text.encode()).decode()


def keys_below(prefix: str) -> dict[str, object]:
    """Return the range of all keys that begin with `prefix`, which ends with a slash."""
    return {"key": encode(prefix), "range_end": encode(prefix[:-1] + chr(ord(prefix[-1]) + 1))}


def call(
    member: EtcdMember, method: str, path: str, body: Mapping[str, object] | None = None, token: str = ""
) -> dict[str, object]:
    """One request to a member, from beside it. Raises OSError or LabError."""
    connection = http.client.HTTPConnection(*member.gateway, timeout=CALL_SECONDS)
    try:
        with in_network(plain_place(ETCD).network):
            connection.connect()
        headers = {"Authorization": token} if token else {}
        connection.request(method, path, body=json.dumps(body) if body is not None else None, headers=headers)
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


def ask(topology: Topology, path: str, body: Mapping[str, object]) -> dict[str, object]:
    """One request to the first member that answers, as root where it wants a user. Raises LabError."""
    failures: list[str] = []
    for member in topology.etcd:
        try:
            token = _authenticate(member) if member.secure else ""
            return call(member, "POST", path, body, token)
        except (OSError, LabError) as error:
            failures.append(f"{member.name}: {path}: {error}")
    raise LabError("; ".join(failures))


def _authenticate(member: EtcdMember) -> str:
    return str(call(member, "POST", "/v3/auth/authenticate", {"name": ROOT, "password": PASSWORD})["token"])
