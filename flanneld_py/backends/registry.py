"""Which backends there are, by the Type of the configuration; only the module of the chosen one is loaded."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from flanneld_py.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from flanneld_py.backends.backend import Backend
    from flanneld_py.core.network_config import NetworkConfig
    from flanneld_py.core.underlay import Uplink

BACKENDS = ("vxlan", "host-gw", "ipip", "udp", "wireguard", "extension", "alloc")
"""Each `some-type` stands in the module `some_type`, which has a function `parse_some_type`."""


def parse_backend(config: NetworkConfig) -> Callable[[Uplink], Backend]:
    """Read the Backend part of the configuration; the result makes the backend for an uplink. Raises ConfigError."""
    if config.backend_type not in BACKENDS:
        said = "is not known here" if config.backend_type != "ipsec" else "is not built: wireguard encrypts as well"
        known = ", ".join(BACKENDS)
        raise ConfigError("Backend.Type", f"{config.backend_type!r} {said}; expected one of: {known}")
    name = config.backend_type.replace("-", "_")
    module = import_module(f"flanneld_py.backends.{name}")
    parse: Callable[[NetworkConfig], Callable[[Uplink], Backend]] = getattr(module, f"parse_{name}")
    return parse(config)
