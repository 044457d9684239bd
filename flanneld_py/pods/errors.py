"""The errors that a CNI plugin answers with, by the numbers of the specification (SPEC.md, "Error")."""

from __future__ import annotations

INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
DECODING_FAILURE = 6
INVALID_CONFIG = 7
TRY_AGAIN_LATER = 11
PLUGIN_NOT_AVAILABLE = 50
"""STATUS: an ADD could not be served at present."""
LIMITED_CONNECTIVITY = 51
"""STATUS: nor may containers that are there already reach all that they should."""

# Beyond the specification's own, as libcni numbers them.
INVALID_NAMESPACE = 8
INTERNAL = 999


class CniError(Exception):
    """What the runtime is told: a code, a message that says who is wrong, and details."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(f"{message}: {details}" if details else message)
        self.code = code
        self.message = message
        self.details = details


class ElsewhereError(Exception):
    """A daemon cannot serve this call, the plugin's own process can; nothing has been changed."""
