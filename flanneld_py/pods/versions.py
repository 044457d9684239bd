"""The versions of the CNI specification: which there are, and what each brought."""

from __future__ import annotations

from flanneld_py.core.named_tuple import TYPE_CHECKING
from flanneld_py.pods import errors
from flanneld_py.pods.errors import CniError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flanneld_py.pods.fields import Fields

SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
NEWEST = SUPPORTED[-1]
_WHEN_NONE_IS_GIVEN = "0.1.0"

_SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}


def read_version(config: Mapping[str, object]) -> str:
    """Return the configuration's version. Raises CniError with code 1 if it is none that we speak."""
    version = config.get("cniVersion")
    if version is None or version == "":
        version = _WHEN_NONE_IS_GIVEN
    if version not in SUPPORTED:
        raise CniError(
            errors.INCOMPATIBLE_VERSION,
            f"cniVersion {version!r} of the network configuration is not supported",
            f"expected one of {', '.join(SUPPORTED)}",
        )
    return str(version)


def require_verb(verb: str, version: str) -> None:
    """Raise CniError with code 1 if the version does not have the verb."""
    since = _SINCE.get(verb)
    if since is not None and not is_at_least(version, since):
        raise CniError(errors.INCOMPATIBLE_VERSION, f"cniVersion {version} has no {verb}", f"expected at least {since}")


def is_at_least(version: str, other: str) -> bool:
    """Say whether one supported version is another or a later one."""
    return SUPPORTED.index(version) >= SUPPORTED.index(other)


def describe_versions() -> Fields:
    """Return the answer to VERSION."""
    return {"cniVersion": NEWEST, "supportedVersions": list(SUPPORTED)}
