"""What this machine must allow so that a lab can be: user namespaces. Says what is missing and what mends it."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Switch:
    """A sysctl that can forbid user namespaces: its file, the values that forbid, and the mending command."""

    file: str
    forbids: str
    mend: str


SWITCHES = (
    Switch("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    Switch("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=10000"),
    Switch(
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)


def read_switches() -> dict[str, str]:
    """Return the present values; a switch that this kernel lacks is absent."""
    files = {switch.file: Path("/proc/sys", switch.file) for switch in SWITCHES}
    return {name: file.read_text().strip() for name, file in files.items() if file.exists()}


def explain_refusal(code: int, what: str, values: Mapping[str, str]) -> str:
    """One message for the operator: what the kernel refused, and the commands that mend it."""
    mends = [switch.mend for switch in SWITCHES if values.get(switch.file) == switch.forbids]
    reason = f"this machine lets this user make no network lab ({what})"
    if mends:
        return f"{reason}; as root run: {'; '.join(mends)}"
    if code == errno.ENOSPC:
        return f"{reason}: the limit of namespaces is reached; as root run: sysctl -w user.max_user_namespaces=10000"
    if "/proc" in what:
        return f"{reason}; this container hides parts of /proc: start it with --security-opt systempaths=unconfined"
    if code in {errno.EPERM, errno.EACCES}:
        return (
            f"{reason}; inside a container its seccomp profile forbids it: start the container with "
            "--security-opt seccomp=unconfined (or --privileged)"
        )
    if code == errno.EINVAL:
        return f"{reason}: the kernel was built without user namespaces (CONFIG_USER_NS)"
    return reason


def id_map_of_root(own_map: str) -> str:
    """Return the map for root's new user namespace, from root's own: every id stays what it is."""
    ranges = [line.split() for line in own_map.splitlines()]
    return "".join(f"{first} {first} {count}\n" for first, _, count in ranges)


def id_map_of_user(own_id: int) -> str:
    """Return the map that the kernel grants anybody: their own id becomes root's."""
    return f"0 {own_id} 1\n"
