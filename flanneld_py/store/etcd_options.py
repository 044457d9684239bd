"""How to reach etcd: what the operator's flags say, parsed into complete values.

Owns no connection and imports no gRPC, so the command line can check its flags without paying for either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from flanneld_py.core.errors import ConfigError

DEFAULT_PREFIX = "/coreos.com/network"
DEFAULT_ENDPOINTS = "http://127.0.0.1:4001,http://127.0.0.1:2379"

_ENDPOINT = re.compile(r"(https?)://(\[[0-9a-fA-F:.]+\]|[^/:@\[\]\s]+)(?::([0-9]{1,5}))?/?")
_DEFAULT_PORT = 2379


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One etcd member's client address; `target` is host:port as gRPC takes it, `secure` asks for TLS."""

    target: str
    secure: bool

    def __str__(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.target}"


@dataclass(frozen=True, slots=True)
class EtcdOptions:
    """Everything that a connection to etcd needs; the empty string stands for a file or name that is not given.

    `cafile`, `certfile` and `keyfile` are paths of PEM files and are read anew for every connection.
    """

    endpoints: tuple[Endpoint, ...]
    prefix: str = DEFAULT_PREFIX
    cafile: str = ""
    certfile: str = ""
    keyfile: str = ""
    username: str = ""
    password: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Refuse what cannot work whatever the files hold; raises ConfigError."""
        if bool(self.certfile) != bool(self.keyfile):
            missing = "etcd-keyfile" if self.certfile else "etcd-certfile"
            raise ConfigError(missing, "it is missing; a client certificate needs both its files")
        if self.password and not self.username:
            raise ConfigError("etcd-username", "it is missing; a password needs the user whose it is")


def parse_endpoints(text: str, key: str = "etcd-endpoints") -> tuple[Endpoint, ...]:
    """Read a comma list like `http://10.0.0.1:2379,https://etcd.example:2379`; raise ConfigError naming `key`."""
    endpoints = tuple(_parse_endpoint(part.strip(), key) for part in text.split(",") if part.strip())
    if not endpoints:
        raise ConfigError(key, "it is empty; expected a comma list like http://10.0.0.1:2379")
    return endpoints


def _parse_endpoint(text: str, key: str) -> Endpoint:
    match = _ENDPOINT.fullmatch(text)
    if match is None:
        # A user and password in the address would be repeated here: say what is wrong without quoting it.
        shown = "an address with a user in it" if "@" in text else repr(text[:80])
        raise ConfigError(key, f"{shown} is no address; expected one like http://10.0.0.1:2379")
    scheme, host, port_text = match.groups()
    port = int(port_text or _DEFAULT_PORT)
    if not 0 < port < 2**16:
        raise ConfigError(key, f"{text!r} has a port that does not exist; expected 1 to 65535")
    return Endpoint(f"{host}:{port}", secure=scheme == "https")
