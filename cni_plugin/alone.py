"""A call that no daemon serves: carried out in the plugin's own process, by the same code.

It imports only what the call's verb needs, and that late.
"""

from __future__ import annotations

import os

from flanneld_py.core.named_tuple import TYPE_CHECKING
from flanneld_py.pods import errors
from flanneld_py.pods.answer import answer
from flanneld_py.pods.errors import CniError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flanneld_py.pods.fields import Fields
    from flanneld_py.pods.invocation import Invocation


_READY_PATIENCE = 2.0
"""Seconds that an ADD waits for subnet.env before it answers that the runtime should try again later."""
_READY_PAUSE = 0.05


def serve_alone(
    environment: Mapping[bytes, bytes], config: bytes | OSError, *, interrupted: bool = False
) -> tuple[int, bytes]:
    """Serve a call and return exit status and standard output.

    `config` is standard input, or why it cannot be read; `interrupted` says that a daemon began to serve the call.
    """
    from flanneld_py.pods.invocation import decode_environment

    given = answer(lambda: serve(decode_environment(environment), config, interrupted=interrupted))
    return given.status, given.output.encode()


def serve(environment: Mapping[str, str], config: bytes | OSError, *, interrupted: bool = False) -> Fields | None:
    """Do what the environment asks for and return the result. Raises CniError, KernelError, OSError."""
    if environment.get("CNI_COMMAND") == "VERSION":
        from flanneld_py.pods.versions import describe_versions

        return describe_versions()
    if isinstance(config, OSError):
        raise CniError(errors.IO_FAILURE, "standard input cannot be read", str(config)) from config
    from flanneld_py.pods.invocation import parse_invocation

    call = parse_invocation(environment, config)
    if interrupted and call.verb == "ADD":
        # How far it came is not known, and only a DEL may take down what is there: it could be an earlier ADD's.
        raise CniError(
            errors.TRY_AGAIN_LATER, "flanneld ended while it served the call", "a DEL must come before another ADD"
        )
    return _serve(call)


def _patiently(call: Invocation, work: Callable[[], Fields | None]) -> Fields | None:
    """Do an ADD that comes before the node is ready a little later: that is quicker than the runtime's next attempt."""
    left = _READY_PATIENCE
    while True:
        try:
            return work()
        except CniError as error:
            if call.verb != "ADD" or error.code != errors.TRY_AGAIN_LATER or left <= 0:
                raise
        import time

        time.sleep(_READY_PAUSE)
        left -= _READY_PAUSE


def _serve(call: Invocation) -> Fields | None:
    from flanneld_py.kernel.netlink_socket import NetlinkSocket
    from flanneld_py.pods.verbs import Server, open_container, perform

    namespace = open_container(call)
    try:
        with NetlinkSocket() as sock:
            return _patiently(call, lambda: perform(call, namespace, Server(sock)))
    finally:
        if namespace is not None:
            os.close(namespace)
