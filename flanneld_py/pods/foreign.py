"""A delegate that is not our own bridge: its plugin is found in CNI_PATH and executed, as the specification says.

For calls in the plugin's own process only: the plugin inherits the environment, and with it the CNI_… variables.
"""

from __future__ import annotations

from flanneld_py.core.named_tuple import TYPE_CHECKING
from flanneld_py.pods import errors, scratch
from flanneld_py.pods.errors import CniError
from flanneld_py.pods.fields import is_name
from flanneld_py.pods.json_text import encode_json, parse_object

if TYPE_CHECKING:
    from flanneld_py.pods.fields import Fields
    from flanneld_py.pods.invocation import Invocation
    from flanneld_py.pods.network_conf import NetworkConf


def add_by_other(call: Invocation, network: NetworkConf, delegate: Fields) -> Fields:
    """Have another plugin do the ADD and return its result. Raises CniError, OSError."""
    if delegate.get("antiSpoof") is True:
        raise CniError(
            errors.UNSUPPORTED_FIELD,
            "antiSpoof guards no container that another plugin wires",
            f"take it out, or what hands the container to {delegate['type']!r}",
        )
    executable = _find(str(delegate["type"]), call.plugin_path)
    undo = scratch.write_scratch(network.data_dir, call.container_id, delegate)
    try:
        return parse_object(_execute(executable, delegate), f"the result of the plugin {delegate['type']}")
    except BaseException:
        undo()
        raise


def delete_by_other(call: Invocation, network: NetworkConf, delegate: Fields) -> None:
    """Have the plugin that did the ADD do the DEL. Raises CniError, OSError."""
    _execute(_find(str(delegate["type"]), call.plugin_path), delegate)
    scratch.remove_scratch(network.data_dir, call.container_id)


def pass_on(call: Invocation, delegate: Fields, more: Fields) -> None:
    """Have another plugin do a verb that has no result; `more` is told beside its configuration.

    Raises CniError, OSError.
    """
    _execute(_find(str(delegate["type"]), call.plugin_path), delegate | more)


def _find(kind: str, plugin_path: str) -> str:
    import os

    for folder in plugin_path.split(os.pathsep) if is_name(kind) else ():
        candidate = f"{folder}/{kind}"
        if folder and os.access(candidate, os.X_OK):
            return candidate
    raise CniError(
        errors.INVALID_CONFIG,
        f"the delegate's plugin {kind!r} is not in CNI_PATH",
        f"install it into one of {plugin_path or 'no folder'}",
    )


def _execute(executable: str, delegate: Fields) -> bytes:
    import subprocess

    done = subprocess.run([executable], input=encode_json(delegate).encode(), stdout=subprocess.PIPE, check=False)
    if done.returncode == 0:
        return done.stdout
    failure = parse_object(done.stdout, f"what {executable} says, with exit status {done.returncode},")
    code = failure.get("code")
    raise CniError(
        code if isinstance(code, int) else errors.INTERNAL,
        f"{executable} failed: {failure.get('msg', 'it does not say why')}",
        str(failure.get("details", "")),
    )
