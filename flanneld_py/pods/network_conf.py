"""The network configuration of the flannel plugin, and the delegate's that comes out of it and subnet.env.

Pure. The names and the defaults are Go flannel's; the delegate's configuration is the one that its plugin writes
and executes, so that either plugin can take down what the other has set up.
"""

from __future__ import annotations

from flanneld_py.core.named_tuple import TYPE_CHECKING, NamedTuple
from flanneld_py.pods import errors
from flanneld_py.pods.errors import CniError
from flanneld_py.pods.fields import is_name, read_network_name, read_object, read_text, refuse
from flanneld_py.pods.result import PodRoute, encode_route, parse_routes
from flanneld_py.pods.versions import NEWEST, read_version

if TYPE_CHECKING:
    from flanneld_py.core.subnet_env import SubnetEnv
    from flanneld_py.pods.fields import Fields

BRIDGE = "bridge"
HOST_LOCAL = "host-local"
DEFAULT_STORE = "/var/lib/cni/networks"

_SUBNET_FILE = "/run/flannel/subnet.env"
_DATA_DIR = "/var/lib/cni/flannel"


class NetworkConf(NamedTuple):
    """The flannel plugin's own configuration; `delegate`, `ipam`, `runtime` and `previous` are raw objects.

    `previous` is None where there is no prevResult.
    """

    name: str
    version: str
    has_version: bool
    subnet_file: str
    data_dir: str
    delegate: Fields
    ipam: Fields
    runtime: Fields
    previous: Fields | None

    @property
    def raw_delegate(self) -> Fields:
        """The delegate as far as it is known without subnet.env."""
        return {**self.delegate, "name": self.name, "ipam": self.ipam, "runtimeConfig": self.runtime}


def parse_network_conf(fields: Fields) -> NetworkConf:
    """Read the configuration. Raises CniError."""
    version = read_version(fields)
    name = read_network_name(fields)
    delegate = read_object(fields, "delegate")
    for key in ("name", "ipam"):
        if key in delegate:
            raise CniError(errors.INVALID_CONFIG, f"the delegate must have no {key!r}", "it comes from flannel itself")
    kind = delegate.get("type", BRIDGE)
    if not isinstance(kind, str) or not is_name(kind):
        raise refuse("type of the delegate", "the name of a plugin")
    return NetworkConf(
        name,
        version,
        bool(fields.get("cniVersion")),
        read_text(fields, "subnetFile", _SUBNET_FILE),
        read_text(fields, "dataDir", _DATA_DIR),
        delegate,
        read_object(fields, "ipam"),
        read_object(fields, "runtimeConfig"),
        read_object(fields, "prevResult") if fields.get("prevResult") is not None else None,
    )


def named_paths(conf: NetworkConf) -> tuple[str, ...]:
    """Return the files and folders that the configuration names, and those that it leaves to the defaults."""
    store, resolv_conf = (conf.ipam.get(key) for key in ("dataDir", "resolvConf"))
    more = [resolv_conf] if resolv_conf and isinstance(resolv_conf, str) else []
    return (conf.subnet_file, conf.data_dir, store if store and isinstance(store, str) else DEFAULT_STORE, *more)


def is_own(delegate: Fields) -> bool:
    """Say whether a delegate is what this project does by itself: the bridge, with the lease's addresses by host-local.

    What asks for other addresses, or for masquerading without iptables, is left to the plugin that the delegate names.
    """
    ipam, runtime = (delegate[key] if isinstance(delegate.get(key), dict) else {} for key in ("ipam", "runtimeConfig"))
    has_own_addresses = (
        ipam.get("type", HOST_LOCAL) == HOST_LOCAL and not ipam.get("subnet") and not runtime.get("ipRanges")
    )
    has_own_rules = delegate.get("ipMasqBackend") in (None, "iptables")
    return delegate.get("type", BRIDGE) == BRIDGE and has_own_addresses and has_own_rules


def complete_delegate(conf: NetworkConf, env: SubnetEnv) -> Fields:
    """Return the delegate's complete configuration, keys in the order in which Go's encoder writes them.

    Raises CniError.
    """
    delegate = {"type": BRIDGE, "ipMasq": not env.ip_masq, "mtu": env.mtu} | conf.delegate
    if delegate["type"] == BRIDGE:
        delegate.setdefault("isGateway", True)
    if conf.runtime:
        delegate["runtimeConfig"] = conf.runtime
    if conf.has_version:
        delegate["cniVersion"] = conf.version
    delegate["name"] = conf.name
    delegate["ipam"] = _complete_ipam(conf.ipam, env)
    return _sorted(delegate)


def _complete_ipam(ipam: Fields, env: SubnetEnv) -> Fields:
    # Ranges are always the leased subnets; the networks follow the user's routes, without a gateway.
    routes = (*parse_routes(ipam, "routes"), *map(PodRoute, env.networks))
    return (
        {"type": HOST_LOCAL}
        | ipam
        | {
            "ranges": [[{"subnet": str(subnet)}] for subnet in env.subnets],
            "routes": [encode_route(route, NEWEST) for route in routes],
        }
    )


def _sorted(value: Fields) -> Fields:
    return {key: _sorted(item) if isinstance(item, dict) else item for key, item in sorted(value.items())}
