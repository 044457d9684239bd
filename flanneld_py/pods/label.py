"""The label on the host's end of each pair: whose device it is.

It is the device's alias, which the kernel keeps and `ip link` shows. What names can hold keeps a label unambiguous.
"""

from __future__ import annotations

from flanneld_py.core.named_tuple import NamedTuple

_SEPARATOR = "/"
_LONGEST = 255
"""Bytes; IFALIASZ less the final NUL."""


class Label(NamedTuple):
    """A container's device in a network."""

    network: str
    container_id: str
    ifname: str


def write_label(label: Label) -> str:
    """Return the alias, empty if the names are too long for one."""
    text = _SEPARATOR.join(label)
    return text if len(text.encode()) <= _LONGEST else ""


def read_label(alias: str) -> Label | None:
    """Return the label that an alias is, None if it is another's."""
    parts = alias.split(_SEPARATOR)
    return Label(*parts) if len(parts) == 3 and all(parts) else None
