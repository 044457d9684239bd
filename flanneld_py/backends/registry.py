"""Which backends there are, by the Type of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld_py.backends.vxlan import parse_vxlan
from flanneld_py.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from flanneld_py.backends.backend import Backend
    from flanneld_py.core.network_config import NetworkConfig
    from flanneld_py.core.underlay import Uplink

_BACKENDS = {"vxlan": parse_vxlan}


def parse_backend(config: NetworkConfig) -> Callable[[Uplink], Backend]:
    """Read the Backend part of the configuration; the result makes the backend for an uplink. Raises ConfigError."""
    parse = _BACKENDS.get(config.backend_type)
    if parse is None:
        known = ", ".join(_BACKENDS)
        named = repr(config.backend_type) if config.backend_given else "udp, what a missing Backend means,"
        raise ConfigError("Backend.Type", f"{named} is not known here; expected one of: {known}")
    return parse(config)
