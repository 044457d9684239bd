"""What WireGuard knows of itself and its peers, as plain values; and its keys (Curve25519, RFC 7748)."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from flanneld_py.core.prefix import Prefix

KEY_SIZE = 32
NO_KEY = bytes(KEY_SIZE)
"""A preshared key of zeros is none."""

_PRIME = 2**255 - 19
_A24 = 121665
_BASE = 9


class Endpoint(NamedTuple):
    """Where a peer listens; `address` is an integer."""

    family: int
    address: int
    port: int


class WireguardPeer(NamedTuple):
    """A peer as a device holds it; `keepalive` in seconds, 0 for none, `endpoint` None while nobody knows it.

    `received` and `sent` are bytes of WireGuard's own messages, since the peer is known to the device.
    """

    public_key: bytes
    preshared_key: bytes
    endpoint: Endpoint | None
    keepalive: int
    allowed: tuple[Prefix, ...]
    received: int = 0
    sent: int = 0


class WireguardState(NamedTuple):
    """A device: its private key, the port it listens at, and its peers."""

    private_key: bytes
    port: int
    peers: tuple[WireguardPeer, ...]


class PeerChange(NamedTuple):
    """A change to a peer: removed, or made and given what is not None; allowed prefixes may replace all others."""

    public_key: bytes
    remove: bool = False
    preshared_key: bytes | None = None
    endpoint: Endpoint | None = None
    keepalive: int | None = None
    allowed: tuple[Prefix, ...] = ()
    replace_allowed: bool = False


class DeviceChange(NamedTuple):
    """A change to a device: its key and port, unless None, then its peers in this order."""

    private_key: bytes | None
    port: int | None
    peers: tuple[PeerChange, ...]


def parse_wireguard_key(text: str) -> bytes:
    """Read a key as WireGuard's tools write it; raise ValueError without showing it."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_SIZE:
        raise ValueError("it is no key of 32 bytes in base64")
    return key


def format_wireguard_key(key: bytes) -> str:
    """Write a key as WireGuard's tools do."""
    return base64.b64encode(key).decode()


def clamp_private_key(random: bytes) -> bytes:
    """Make 32 random bytes a private key."""
    return bytes((random[0] & 248, *random[1:31], random[31] & 127 | 64))


def public_key_of(private_key: bytes) -> bytes:
    """Return the public key of a private one: X25519 with the base point (RFC 7748, 5)."""
    scalar = int.from_bytes(clamp_private_key(private_key), "little")
    x2, z2, x3, z3, swapped = 1, 0, _BASE, 1, 0
    for place in reversed(range(255)):
        bit = scalar >> place & 1
        if swapped ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swapped = bit
        plus, minus = x2 + z2, x2 - z2
        square_plus, square_minus = plus * plus % _PRIME, minus * minus % _PRIME
        difference = square_plus - square_minus
        crossed, other = (x3 - z3) * plus, (x3 + z3) * minus
        x3 = pow(crossed + other, 2, _PRIME)
        z3 = _BASE * pow(crossed - other, 2, _PRIME) % _PRIME
        x2 = square_plus * square_minus % _PRIME
        z2 = difference * (square_plus + _A24 * difference) % _PRIME
    if swapped:
        x2, z2 = x3, z3
    return (x2 * pow(z2, _PRIME - 2, _PRIME) % _PRIME).to_bytes(KEY_SIZE, "little")
