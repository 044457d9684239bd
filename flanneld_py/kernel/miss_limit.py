"""A limit on the addresses that the kernel asks for at once, which it keeps by itself: an nftables table of our own.

Whatever takes the catch-all route notes its destination in a set that has room for so many; where there is no room
left, the packet is refused before a neighbour is made for it. Only who owns this object takes addresses out of the
set again.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from flanneld_py.core.misses import MOST_ASKED
from flanneld_py.core.prefix import IPV4, IPV6, bits, host_mask
from flanneld_py.kernel import netlink, nf_expressions, nf_tables
from flanneld_py.kernel.families import encode_address
from flanneld_py.kernel.nf_expressions import FIRST, NETWORK, compare, expression, load, mask, verdict
from flanneld_py.kernel.nf_tables import number, text
from flanneld_py.kernel.nf_tables_socket import NfTables, drop_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld_py.core.prefix import Prefix
    from flanneld_py.kernel.netlink import Message, Request

REALMS = {IPV4: 119, IPV6: 0}
"""The realm that a catch-all route is known by; IPv6 has none, and needs none."""
TABLE_PREFIX = "flannel-misses-"

_PROTOCOLS = {IPV4: nf_tables.NFPROTO_IPV4, IPV6: nf_tables.NFPROTO_IPV6}
_SET, _ASK = "asked", "ask"
_NFT_TYPES = {IPV4: 7, IPV6: 8}
"""What nft takes the keys for: ipv4_addr, ipv6_addr."""
_DESTINATIONS = {IPV4: 16, IPV6: 24}
_LAST = 300
"""The priority of the chains: what others drop has not been asked for. NF_IP_PRI_LAST is later still."""
_BASE_CHAINS = {"forward": nf_tables.Hook(2, _LAST), "output": nf_tables.Hook(3, _LAST)}
_RT_CLASSID, _RT_NEXTHOP6 = 0, 2
_META_OIFNAME = 7
_IFNAMSIZ = 16
_U32 = struct.Struct("=I")
_ROUTES_OWN = _U32.pack(0xFFFF)
"""The half of a class id that is the route's own realm; the other is that of the way back (fib_combine_itag)."""
_DYNSET_ADD = 0
_ICMP_UNREACH = 0
_HOST_UNREACHABLE = {IPV4: 1, IPV6: 3}
"""ICMP_HOST_UNREACH, ICMPV6_ADDR_UNREACH."""


class MissLimit:
    """The table for one device."""

    def __init__(self, device: str, network: Prefix) -> None:
        """Take charge of it, whether it is there or not; `network` is what the catch-all route leads to."""
        self._opened = NfTables()
        self._network = network
        self._family = _PROTOCOLS[network.family]
        self._device = device
        self._table = TABLE_PREFIX + device

    @property
    def _size(self) -> int:
        return bits(self._network.family) // 8

    @property
    def table(self) -> str:
        """The table's name."""
        return self._table

    @property
    def port(self) -> int:
        """The netlink port by which the table is changed."""
        return self._opened.port

    def close(self) -> None:
        """Close the socket; the table stays."""
        self._opened.close()

    def ensure(self) -> bool:
        """Have the table as it should be; return whether it had to be written. Raises KernelError."""
        wanted = self._chains()
        if self._opened.holds(self._family, self._table, wanted):
            return False
        make = nf_tables.new_table(self._family, self._table)
        asked = nf_tables.new_set(
            *(self._family, self._table, _SET, self._size, _NFT_TYPES[self._network.family]),
            flags=nf_tables.SET_BY_RULES,
            room=MOST_ASKED,
        )
        # What is not there cannot be deleted; so it is made first, in the same transaction.
        requests = [make, nf_tables.delete_table(self._family, self._table), make, asked, *wanted]
        self._opened.execute(requests, f"write table {self._table}")
        return True

    def read(self) -> set[int]:
        """Return the addresses in the set. Raises KernelError."""
        named = (text(nf_tables.ELEMENTS_TABLE, self._table), text(nf_tables.ELEMENTS_SET, _SET))
        request = nf_tables.message(nf_tables.GETSETELEM, self._family, *named)
        return {address for part in self._opened.dump(request, _decode_elements) for address in part}

    def take_out(self, addresses: Iterable[int]) -> None:
        """Make room for others in the set; all of these must be in it. Raises KernelError."""
        head = nf_tables.element_head(self._size)
        elements = [head + encode_address(self._network.family, address) for address in addresses]
        request = nf_tables.change_elements(nf_tables.DELSETELEM, self._family, self._table, _SET, elements)
        self._opened.execute([request], f"take addresses out of table {self._table}")

    def _chains(self) -> list[Request]:
        asks = [nf_tables.new_chain(self._family, self._table, _ASK)]
        asks += [
            nf_tables.new_chain(self._family, self._table, name, "filter", hook) for name, hook in _BASE_CHAINS.items()
        ]
        accept = verdict(nf_tables.NF_ACCEPT)
        return [
            *asks,
            *(self._rule(name, *self._is_asked_for()) for name in _BASE_CHAINS),
            # The rule ends without effect where the set is full.
            self._rule(_ASK, load(NETWORK, _DESTINATIONS[self._network.family], self._size), _add_to_set(), accept),
            self._rule(_ASK, _refuse(self._network.family)),
        ]

    def _rule(self, chain: str, *expressions: bytes) -> Request:
        return nf_tables.append_rule(self._family, self._table, chain, *expressions)

    def _is_asked_for(self) -> tuple[bytes, ...]:
        """Test for the catch-all route; others may use its realm, but not our device."""
        name = self._device.encode().ljust(_IFNAMSIZ, b"\0")
        return (
            *(self._has_realm() if self._network.family == IPV4 else self._has_no_gateway()),
            *(nf_expressions.load_meta(_META_OIFNAME), compare(name)),
            verdict(nf_tables.NFT_GOTO, _ASK),
        )

    @staticmethod
    def _has_realm() -> tuple[bytes, ...]:
        realm = expression("rt", number(1, FIRST), number(2, _RT_CLASSID))
        return realm, mask(_ROUTES_OWN), compare(_U32.pack(REALMS[IPV4]))

    def _has_no_gateway(self) -> tuple[bytes, ...]:
        """Test where the packet goes next: a peer's gateway is outside the network in IPv6, link-local."""
        family, address, length = self._network
        whole = host_mask(family, 0) ^ host_mask(family, length)
        nexthop = expression("rt", number(1, FIRST), number(2, _RT_NEXTHOP6))
        return nexthop, mask(encode_address(family, whole)), compare(encode_address(family, address))


def drop_limit(device: str, family: int) -> None:
    """Take a device's table away; having none is no error. Raises KernelError."""
    drop_table(_PROTOCOLS[family], TABLE_PREFIX + device)


def _add_to_set() -> bytes:
    return expression("dynset", text(1, _SET), number(3, _DYNSET_ADD), number(4, FIRST))


def _refuse(family: int) -> bytes:
    return expression("reject", number(1, _ICMP_UNREACH), netlink.encode_u8(2, _HOST_UNREACHABLE[family]))


def _decode_elements(message: Message) -> list[int]:
    listed = netlink.decode_attributes(message.payload, nf_tables.GENERIC.size).get(nf_tables.ELEMENTS_LIST)
    if listed is None:
        return []
    return [
        int.from_bytes(netlink.decode_attributes(netlink.decode_attributes(element)[1])[1], "big")
        for _, _, element in netlink.walk_attributes(listed)
    ]
