"""Which backends there are, by the Type of the configuration; only the module of the chosen one is loaded."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from flanneld_py.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from flanneld_py.backends.backend import Backend
    from flanneld_py.core.network_config import NetworkConfig
    from flanneld_py.core.underlay import Uplink

BACKENDS = ("vxlan", "host-gw", "ipip", "udp", "wireguard", "extension", "alloc")
"""Each `some-type` stands in the module `some_type`, which has a function `parse_some_type`, and KEYS."""


def parse_backend(config: NetworkConfig) -> Callable[[Uplink], Backend]:
    """Read the Backend part of the configuration; the result makes the backend for an uplink. Raises ConfigError."""
    module = _find_module(config.backend_type)
    name = config.backend_type.replace("-", "_")
    parse: Callable[[NetworkConfig], Callable[[Uplink], Backend]] = getattr(module, f"parse_{name}")
    return parse(config)


def backend_keys(backend_type: str) -> tuple[str, ...]:
    """Return the keys that Backend has for a type, beside Type, as they are mostly written. Raises ConfigError."""
    keys: tuple[str, ...] = _find_module(backend_type).KEYS
    return keys


def _find_module(backend_type: str) -> ModuleType:
    if backend_type not in BACKENDS:
        said = "is not known here" if backend_type != "ipsec" else "is not built: wireguard encrypts as well"
        raise ConfigError("Backend.Type", f"{backend_type!r} {said}; expected one of: {', '.join(BACKENDS)}")
    return import_module(f"flanneld_py.backends.{backend_type.replace('-', '_')}")
