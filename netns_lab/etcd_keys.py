"""The keys in a lab's etcd: written, read and deleted, their history, and the room for them; as root if it has users.

All of it raises LabError where no member answers.
"""

from base64 import b64decode

from netns_lab.etcd import PREFIX, ask, encode, keys_below
from netns_lab.topology import Topology

SUBNETS = f"{PREFIX}/subnets/"


def put(topology: Topology, key: str, value: str) -> None:
    """Write a key."""
    ask(topology, "/v3/kv/put", {"key": encode(key), "value": encode(value)})


def read_below(topology: Topology, prefix: str) -> dict[str, bytes]:
    """Return all keys that begin with `prefix`, which ends with a slash, without it, and their values."""
    found = ask(topology, "/v3/kv/range", keys_below(prefix)).get("kvs", [])
    assert isinstance(found, list)  # noqa: S101  # as etcd's API says
    names = [b64decode(entry["key"]).decode(errors="replace").removeprefix(prefix) for entry in found]
    # A key without a value is told without one.
    return dict(zip(names, (b64decode(entry.get("value", "")) for entry in found), strict=True))


def delete(topology: Topology, key: str) -> None:
    """Delete a key."""
    ask(topology, "/v3/kv/deleterange", {"key": encode(key)})


def delete_below(topology: Topology, prefix: str) -> None:
    """Delete all keys that begin with `prefix`, which ends with a slash."""
    ask(topology, "/v3/kv/deleterange", keys_below(prefix))


def compact(topology: Topology) -> None:
    """Take away the history up to what was written last."""
    header = ask(topology, "/v3/kv/range", {"key": encode("/"), "count_only": True})["header"]
    assert isinstance(header, dict)  # noqa: S101  # as etcd's API says
    ask(topology, "/v3/kv/compaction", {"revision": str(header["revision"])})


def raise_no_space(topology: Topology) -> None:
    """Have the store refuse writes as one without space does."""
    ask(topology, "/v3/maintenance/alarm", {"action": "ACTIVATE", "memberID": 0, "alarm": "NOSPACE"})


def clear_no_space(topology: Topology) -> None:
    """Have the store take writes again: an alarm belongs to the member that raised it, so each one's is cleared."""
    told = ask(topology, "/v3/maintenance/alarm", {"action": "GET", "memberID": 0, "alarm": "NONE"})
    alarms = told.get("alarms", [])
    assert isinstance(alarms, list)  # noqa: S101  # as etcd's API says
    for alarm in [*alarms, {"memberID": 0}]:
        body = {"action": "DEACTIVATE", "memberID": alarm.get("memberID", 0), "alarm": "NOSPACE"}
        ask(topology, "/v3/maintenance/alarm", body)
