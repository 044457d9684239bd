"""Reaching etcd as the daemon does: by flags, by its FLANNELD_* variables, or as the daemon of this node says."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flanneld_py.core.errors import ConfigError, StoreError
from flanneld_py.ctl.daemon import NoDaemonError, add_daemon_flags, ask
from flanneld_py.ctl.errors import CtlError
from flanneld_py.store.etcd_options import DEFAULT_ENDPOINTS, DEFAULT_PREFIX, EtcdOptions, parse_endpoints

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

    from flanneld_py.store.etcd_admin import EtcdAdmin

Result = TypeVar("Result")

_FLAGS = {
    "endpoints": "comma list of etcd endpoints",
    "prefix": "etcd prefix of the network",
    "cafile": "certificate authority file to check etcd by",
    "certfile": "client certificate file",
    "keyfile": "key file of the client certificate",
    "username": "etcd user name; its password is in --etcd-password-file or FLANNELD_ETCD_PASSWORD",
    "password-file": "file that holds the etcd password",
}
_DEFAULTS = {"endpoints": DEFAULT_ENDPOINTS, "prefix": DEFAULT_PREFIX}


def add_store_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags by which etcd is reached; whatever is not given is asked of the daemon."""
    add_daemon_flags(parser)
    for name, told in _FLAGS.items():
        parser.add_argument(f"--etcd-{name}", help=told)


def work_in_store(options: argparse.Namespace, work: Callable[[EtcdAdmin], Awaitable[Result]]) -> Result:
    """Connect, do the work and return its result. Raises CtlError where etcd does not answer."""
    from flanneld_py.store.etcd_admin import EtcdAdmin  # gRPC, which commands without etcd need not load

    async def connected() -> Result:
        admin = EtcdAdmin(pick_options(options))
        try:
            return await work(admin)
        finally:
            await admin.close()

    try:
        return asyncio.run(connected())
    except StoreError as error:
        raise CtlError(str(error)) from error


def pick_options(options: argparse.Namespace) -> EtcdOptions:
    """Return how etcd is reached. Raises CtlError."""
    told: dict[str, Any] = {}
    with suppress(NoDaemonError):
        told = ask(options.subnet_file, "status").get("store", {})
    if told.get("type", "etcd") != "etcd":
        raise CtlError(f"this node's store is {told['type']}: use its own tools, such as kubectl")
    if isinstance(told.get("endpoints"), list):
        told["endpoints"] = ",".join(told["endpoints"])

    def pick(name: str) -> str:
        given: str | None = getattr(options, f"etcd_{name}")
        variable = os.environ.get(f"FLANNELD_ETCD_{name.upper()}")
        return given or variable or told.get(name) or _DEFAULTS.get(name, "")

    try:
        return EtcdOptions(
            parse_endpoints(pick("endpoints")),
            prefix=pick("prefix"),
            cafile=pick("cafile"),
            certfile=pick("certfile"),
            keyfile=pick("keyfile"),
            username=pick("username"),
            password=_read_password(pick("password_file")),
        )
    except ConfigError as error:
        raise CtlError(f"--{error}") from error


def _read_password(file: str) -> str:
    if not file:
        return os.environ.get("FLANNELD_ETCD_PASSWORD", "")
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CtlError(f"--etcd-password-file: {error}") from error
