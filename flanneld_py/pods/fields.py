"""Reading the fields of a JSON object of the network configuration, each of one type or refused by name."""

from __future__ import annotations

from flanneld_py.core.named_tuple import TYPE_CHECKING
from flanneld_py.core.prefix import parse_address
from flanneld_py.pods import errors
from flanneld_py.pods.errors import CniError

if TYPE_CHECKING:
    from typing import Any

    Fields = dict[str, Any]

_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_NO_FIRST_CHARACTERS = frozenset("_.-")
_LONGEST_INTERFACE_NAME = 15
"""IFNAMSIZ without the final NUL."""


def is_name(text: str) -> bool:
    """Say whether a text may name a network or a container: `[a-zA-Z0-9][a-zA-Z0-9_.-]*` (SPEC.md)."""
    return bool(text) and text[0] not in _NO_FIRST_CHARACTERS and _NAME_CHARACTERS.issuperset(text)


def is_interface_name(text: str) -> bool:
    """Say whether the kernel takes a text as a device's name (net/core/dev.c, dev_valid_name), and for no pattern."""
    if not text.isprintable() or text in {"", ".", ".."} or len(text.encode()) > _LONGEST_INTERFACE_NAME:
        return False
    return not any(character in "/:%" or character.isspace() for character in text)


def refuse(key: str, expected: str) -> CniError:
    """Return the error for a field that is not what it should be."""
    return CniError(errors.INVALID_CONFIG, f"{key} of the network configuration is wrong", f"expected {expected}")


def read_bool(fields: Fields, key: str, *, default: bool) -> bool:
    """Read a boolean; absent and null are the default."""
    value = fields.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise refuse(key, "true or false")
    return value


def read_int(fields: Fields, key: str, *, low: int = 0, high: int = 2**31 - 1) -> int:
    """Read an integer; absent and null are 0."""
    value = fields.get(key)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise refuse(key, f"an integer from {low} to {high}")
    return value


def read_text(fields: Fields, key: str, default: str = "") -> str:
    """Read a string; absent, null and empty are the default."""
    value = fields.get(key)
    if value is None or value == "":
        return default
    if not isinstance(value, str) or "\0" in value:
        raise refuse(key, "a string")
    return value


def read_object(fields: Fields, key: str) -> Fields:
    """Read an object; absent and null are an empty one."""
    value = fields.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise refuse(key, "an object")
    return value


def read_objects(fields: Fields, key: str) -> list[Fields]:
    """Read a list of objects; absent and null are an empty one."""
    value = fields.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise refuse(key, "a list of objects")
    return value


def read_texts(fields: Fields, key: str) -> tuple[str, ...]:
    """Read a list of strings; absent and null are an empty one."""
    value = fields.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise refuse(key, "a list of strings")
    return tuple(value)


def read_network_name(fields: Fields) -> str:
    """Read the network's name, which is also a file name."""
    name = fields.get("name")
    if not isinstance(name, str) or not is_name(name):
        raise refuse("name", "letters, digits, '_', '.' and '-', the first a letter or digit")
    return name


def parse_mac(key: str, text: str) -> bytes:
    """Read a MAC of six bytes written `02:00:5e:…`, one that a device may have."""
    parts = text.split(":")
    try:
        mac = bytes(int(part, 16) for part in parts if len(part) == 2)
    except ValueError:
        mac = b""
    if len(parts) != 6 or len(mac) != 6 or mac[0] & 1 or not any(mac):
        raise refuse(key, f"a unicast MAC like 02:42:0a:05:02:03, not {text[:60]!r}")
    return mac


def parse_ip(key: str, text: str) -> tuple[int, int]:
    """Read an address, with or without a prefix length, into its family and its value."""
    try:
        return parse_address(text.partition("/")[0])
    except ValueError as error:
        raise refuse(key, f"an address, not {text[:60]!r}") from error
