"""Masquerading of what a container sends beyond its subnet: the delegate's `ipMasq`, in the reference bridge's chains.

The only place that runs another executable for the bridge, and only where ipMasq is on: iptables, because these
chains must be the ones that the reference plugin makes and takes down.
"""

from __future__ import annotations

from flanneld_py.core.named_tuple import TYPE_CHECKING
from flanneld_py.core.prefix import IPV4, IPV6, format_address
from flanneld_py.pods import errors
from flanneld_py.pods.errors import CniError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld_py.pods.result import PodAddress

_PROGRAMS = {IPV4: "iptables", IPV6: "ip6tables"}
_MULTICAST = {IPV4: "224.0.0.0/4", IPV6: "ff00::/8"}
_HASH_DIGITS = 24
_SEARCH_PATH = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"


class _MissingProgramError(CniError):
    """There is no iptables."""


def chain_name(network: str, container_id: str) -> str:
    """Return the name of a container's chain."""
    from hashlib import sha512

    return "CNI-" + sha512((network + container_id).encode()).hexdigest()[:_HASH_DIGITS]


def ensure_masquerade(network: str, container_id: str, pod: Iterable[PodAddress]) -> None:
    """Masquerade what the container sends beyond its subnets. Raises CniError."""
    chain, comment = chain_name(network, container_id), _comment(network, container_id)
    for address in pod:
        family = address.subnet.family
        own = format_address(family, address.address)
        # iptables writes the rule's destination with its host bits cleared, whichever way it is given.
        rules = (
            (chain, "-d", f"{own}/{address.subnet.length}", "-j", "ACCEPT", *comment),
            (chain, "!", "-d", _MULTICAST[family], "-j", "MASQUERADE", *comment),
            ("POSTROUTING", "-s", own, "-j", chain, *comment),
        )
        _run(family, "-N", chain, may_fail=True)
        for rule in rules:
            if not _run(family, "-C", *rule, may_fail=True):
                _run(family, "-A", *rule)


def drop_masquerade(network: str, container_id: str, held: Iterable[tuple[int, int]]) -> None:
    """Take the container's chains down, by its addresses as (family, value).

    Absent chains are no error, nor is an iptables that has been taken off the node since: a DEL must come to its end.
    """
    chain, comment = chain_name(network, container_id), _comment(network, container_id)
    for family, address in held:
        jump = ("-s", format_address(family, address), "-j", chain, *comment)
        for arguments in (("-D", "POSTROUTING", *jump), ("-F", chain), ("-X", chain)):
            try:
                _run(family, *arguments, may_fail=True)
            except _MissingProgramError:
                break


def _comment(network: str, container_id: str) -> tuple[str, ...]:
    return ("-m", "comment", "--comment", f'name: "{network}" id: "{container_id}"')


def _run(family: int, *arguments: str, may_fail: bool = False) -> bool:
    import os
    import subprocess

    program = _PROGRAMS[family]
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{_SEARCH_PATH}"}
    try:
        done = subprocess.run(
            [program, "-w", "-t", "nat", *arguments], env=environment, capture_output=True, check=False
        )
    except FileNotFoundError as error:
        raise _MissingProgramError(
            errors.INTERNAL,
            f"ipMasq needs {program}, which is not installed",
            'install the package iptables, or set "ipMasq": false in the delegate, or run flanneld with --ip-masq',
        ) from error
    if done.returncode and not may_fail:
        reason = done.stderr.decode(errors="replace").strip()
        raise CniError(errors.INTERNAL, f"{program} {' '.join(arguments)} failed", reason)
    return not done.returncode
