"""subnet.env: what flanneld tells the CNI plugin and other readers on its node.

Owns the format, byte for byte Go flannel's; where the file lies and how it is replaced is the writer's business.
"""

from __future__ import annotations

from flanneld_py.core.named_tuple import NamedTuple
from flanneld_py.core.prefix import IPV4, IPV6, Prefix, format_address, host_mask, parse_host

_NETWORK_KEYS = {IPV4: "FLANNEL_NETWORK", IPV6: "FLANNEL_IPV6_NETWORK"}
_SUBNET_KEYS = {IPV4: "FLANNEL_SUBNET", IPV6: "FLANNEL_IPV6_SUBNET"}
_MTU_KEY = "FLANNEL_MTU"
_IP_MASQ_KEY = "FLANNEL_IPMASQ"


class SubnetEnv(NamedTuple):
    """The content of subnet.env; networks and subnets of both address families, IPv4 first, `mtu` in bytes.

    `ip_masq` says that flanneld masquerades, so that the delegate need not.
    """

    networks: tuple[Prefix, ...]
    subnets: tuple[Prefix, ...]
    mtu: int
    ip_masq: bool


def encode_subnet_env(env: SubnetEnv) -> str:
    """Write the file; a subnet stands there as its first host with the prefix length."""
    lines = []
    for family in (IPV4, IPV6):
        networks = [str(network) for network in env.networks if network.family == family]
        subnets = [
            f"{format_address(family, subnet.address + 1)}/{subnet.length}"
            for subnet in env.subnets
            if subnet.family == family
        ]
        if networks:
            lines.append(f"{_NETWORK_KEYS[family]}={','.join(networks)}")
        if subnets:
            lines.append(f"{_SUBNET_KEYS[family]}={','.join(subnets)}")
    lines += [f"{_MTU_KEY}={env.mtu}", f"{_IP_MASQ_KEY}={'true' if env.ip_masq else 'false'}"]
    return "\n".join(lines) + "\n"


def parse_subnet_env(text: str) -> SubnetEnv:
    """Read the file; unknown lines are ignored, the last of two equal keys counts.

    Raises ValueError naming the key that is missing or wrong.
    """
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    networks = _parse_prefixes(values, _NETWORK_KEYS)
    subnets = _parse_prefixes(values, _SUBNET_KEYS)
    for found, keys in ((networks, _NETWORK_KEYS), (subnets, _SUBNET_KEYS)):
        if not found:
            raise ValueError(f"{keys[IPV4]} or {keys[IPV6]} is missing")
    for key in (_MTU_KEY, _IP_MASQ_KEY):
        if key not in values:
            raise ValueError(f"{key} is missing")
    mtu = values[_MTU_KEY]
    if not mtu.isascii() or not mtu.isdecimal() or len(mtu) > 9:
        raise ValueError(f"{_MTU_KEY} is no number: {mtu!r}")
    return SubnetEnv(networks, subnets, int(mtu), values[_IP_MASQ_KEY] == "true")


def _parse_prefixes(values: dict[str, str], keys: dict[int, str]) -> tuple[Prefix, ...]:
    found = []
    for family, key in keys.items():
        for text in values.get(key, "").split(","):
            if not text:
                continue
            try:
                parsed, address, length = parse_host(text)
            except ValueError as error:
                raise ValueError(f"{key} is wrong: {error}") from error
            if parsed != family:
                raise ValueError(f"{key} is of the other address family: {text!r}")
            found.append(Prefix(family, address & ~host_mask(family, length), length))
    return tuple(found)
