"""What a runtime asks of the plugin: the verb and its parameters from the environment, and standard input.

Pure: it takes the environment as a mapping and opens nothing.
"""

from __future__ import annotations

from flanneld_py.core.named_tuple import TYPE_CHECKING, NamedTuple
from flanneld_py.pods import errors
from flanneld_py.pods.errors import CniError
from flanneld_py.pods.fields import is_interface_name, is_name

if TYPE_CHECKING:
    from collections.abc import Mapping

_VERBS = frozenset({"ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"})
_NEEDED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
}
_YES = frozenset({"1", "true"})
_ANY = "surrogateescape"
"""Bytes that are no UTF-8 come out of a path as they went in."""


class Invocation(NamedTuple):
    """One call of the plugin. What a verb does not take is empty; `plugin_path` is the list of folders in CNI_PATH.

    `netns_override` allows the container's namespace to be the plugin's own.
    """

    verb: str
    container_id: str
    netns: str
    ifname: str
    args: Mapping[str, str]
    plugin_path: str
    netns_override: bool
    config: bytes


def decode_environment(environment: Mapping[bytes, bytes]) -> dict[str, str]:
    """Read variables as the kernel keeps them; whatever the locale, they are taken for UTF-8."""
    return {key.decode(errors=_ANY): value.decode(errors=_ANY) for key, value in environment.items()}


def parse_invocation(environment: Mapping[str, str], config: bytes) -> Invocation:
    """Read a call; `config` is standard input. Raises CniError with code 4."""
    verb = environment.get("CNI_COMMAND", "")
    if verb not in _VERBS:
        expected = "expected ADD, DEL, CHECK, GC, STATUS or VERSION"
        raise CniError(
            errors.INVALID_ENVIRONMENT, f"CNI_COMMAND is {verb[:60]!r}" if verb else "CNI_COMMAND is missing", expected
        )
    values = {key: environment.get(key, "") for key in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH")}
    missing = [key for key in _NEEDED.get(verb, ()) if not values[key]]
    if missing:
        raise CniError(errors.INVALID_ENVIRONMENT, f"{verb} needs {', '.join(missing)}")
    if verb in _NEEDED:
        _check(values["CNI_CONTAINERID"], "CNI_CONTAINERID", is_name(values["CNI_CONTAINERID"]))
        _check(values["CNI_IFNAME"], "CNI_IFNAME", is_interface_name(values["CNI_IFNAME"]))
    return Invocation(
        verb,
        values["CNI_CONTAINERID"],
        values["CNI_NETNS"],
        values["CNI_IFNAME"],
        _parse_args(environment.get("CNI_ARGS", "")),
        values["CNI_PATH"],
        environment.get("CNI_NETNS_OVERRIDE", "").lower() in _YES,
        config,
    )


def _check(value: str, key: str, is_valid: bool) -> None:
    if not is_valid:
        raise CniError(errors.INVALID_ENVIRONMENT, f"{key} is {value[:60]!r}, which is no valid name")


def _parse_args(text: str) -> dict[str, str]:
    # Runtimes pass much that is for others (K8S_POD_NAME …), so an unknown key is never an error.
    found = {}
    for pair in text.split(";"):
        key, equals, value = pair.partition("=")
        if pair and not equals:
            raise CniError(errors.INVALID_ENVIRONMENT, f"CNI_ARGS holds {pair[:60]!r}", "expected KEY=VALUE;KEY=VALUE")
        if pair:
            found[key] = value
    return found
