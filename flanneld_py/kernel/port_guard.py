"""A guard on a device: what comes in over it may bear a certain MAC and certain addresses only.

It is a base chain of nftables in the family netdev, hooked to the device's ingress, named after the device.
"""

from __future__ import annotations

from flanneld_py.core.errors import KernelError
from flanneld_py.core.named_tuple import TYPE_CHECKING
from flanneld_py.core.prefix import IPV4, IPV6
from flanneld_py.kernel import errnos, netlink, nf_expressions, nf_tables
from flanneld_py.kernel.families import encode_address
from flanneld_py.kernel.nf_expressions import LINK, NETWORK, TRANSPORT, compare, load, load_meta
from flanneld_py.kernel.nf_tables_socket import NfTables

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld_py.kernel.netlink import Message, Request

TABLE = "flannel-pods"

_FAMILY = nf_tables.NFPROTO_NETDEV
_INGRESS = 0
_PRIORITY = -300

_ETHERTYPES = {IPV4: b"\x08\x00", IPV6: b"\x86\xdd"}
_ARP = b"\x08\x06"
_SOURCE_OFFSETS = {IPV4: 12, IPV6: 8}
_ARP_SENDER_OFFSET = 8
_LINK_LOCAL = b"\xfe\x80" + bytes(6)
_UNSPECIFIED = bytes(16)
_NO_ADDRESS_YET = bytes(4)
_ICMPV6 = b"\x3a"
_ROUTER_ADVERTISEMENT = b"\x86"


def ensure_guard(device: str, mac: bytes, addresses: Iterable[tuple[int, int]] | None) -> None:
    """Drop what comes in over a device with another MAC, and unless `addresses` is None, with another source address.

    Beside the addresses, as (family, value), the unspecified and link-local ones that IPv6 and ARP need to find them
    may be used; router advertisements and everything that is neither IP nor ARP is dropped. Raises KernelError.
    """
    rules = [_rule(device, load(LINK, 6, 6), compare(mac, equal=False), verdict=nf_tables.NF_DROP)]
    if addresses is not None:
        rules += _address_rules(device, mac, addresses)
        rules.append(_rule(device, verdict=nf_tables.NF_DROP))
    hook = nf_tables.Hook(_INGRESS, _PRIORITY, device)
    made = (nf_tables.new_table(_FAMILY, TABLE), nf_tables.new_chain(_FAMILY, TABLE, device, "filter", hook))
    with NfTables() as opened:
        opened.execute([*made, *rules], f"guard {device}")


def has_guard(device: str) -> bool:
    """Say whether a device is guarded. Raises KernelError."""
    named = nf_tables.chain_attributes(TABLE, device)
    with NfTables() as opened:
        return opened.read(nf_tables.message(nf_tables.GETCHAIN, _FAMILY, *named)) is not None


def read_guarded() -> frozenset[str]:
    """Return the names of all devices that are guarded, or were until they went. Raises KernelError."""
    with NfTables() as opened:
        chains = opened.dump(nf_tables.get_chains(_FAMILY), _decode_names)
    return frozenset(name for table, name in chains if table == TABLE)


def _decode_names(message: Message) -> tuple[str, str]:
    attributes = netlink.decode_attributes(message.payload, nf_tables.GENERIC.size)
    return (
        netlink.decode_text(attributes[nf_tables.CHAIN_TABLE]),
        netlink.decode_text(attributes[nf_tables.CHAIN_NAME]),
    )


def drop_guard(device: str) -> None:
    """Take the guard of a device away; having none is no error. Raises KernelError."""
    try:
        with NfTables() as opened:
            opened.execute([nf_tables.delete_chain(_FAMILY, TABLE, device)], f"take the guard of {device} away")
    except KernelError as error:
        if not errnos.is_absent(error):
            raise


def _address_rules(device: str, mac: bytes, addresses: Iterable[tuple[int, int]]) -> list[Request]:
    advertises = (
        load_meta(nf_expressions.META_L4PROTO),
        compare(_ICMPV6),
        load(TRANSPORT, 0, 1),
        compare(_ROUTER_ADVERTISEMENT),
    )
    is_ipv6 = _is_ethertype(_ETHERTYPES[IPV6])
    rules = [
        _rule(device, *is_ipv6, *advertises, verdict=nf_tables.NF_DROP),
        _rule(device, *is_ipv6, load(NETWORK, 8, 8), compare(_LINK_LOCAL)),
        _rule(device, *is_ipv6, load(NETWORK, 8, 16), compare(_UNSPECIFIED)),
        _rule(device, *_is_arp_from(mac, _NO_ADDRESS_YET)),
    ]
    for family, value in addresses:
        source = encode_address(family, value)
        loaded = load(NETWORK, _SOURCE_OFFSETS[family], len(source))
        rules.append(_rule(device, *_is_ethertype(_ETHERTYPES[family]), loaded, compare(source)))
        if family == IPV4:
            rules.append(_rule(device, *_is_arp_from(mac, source)))
    return rules


def _is_ethertype(value: bytes) -> tuple[bytes, bytes]:
    # A frame with a VLAN tag reads as 0x8100 here, whether the tag is in it or beside it.
    return load(LINK, 12, 2), compare(value)


def _is_arp_from(mac: bytes, address: bytes) -> tuple[bytes, ...]:
    return *_is_ethertype(_ARP), load(NETWORK, _ARP_SENDER_OFFSET, 10), compare(mac + address)


def _rule(device: str, *expressions: bytes, verdict: int = nf_tables.NF_ACCEPT) -> Request:
    return nf_tables.append_rule(_FAMILY, TABLE, device, *expressions, nf_expressions.verdict(verdict))
