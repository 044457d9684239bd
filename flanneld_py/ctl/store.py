"""Reaching the store as the daemon does: by flags, by its FLANNELD_* variables, or as the daemon of this node says."""

from __future__ import annotations

import asyncio
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flanneld_py.core.errors import ConfigError, StoreError
from flanneld_py.ctl.daemon import NoDaemonError, add_daemon_flags, ask
from flanneld_py.ctl.errors import CtlError
from flanneld_py.store.etcd_options import DEFAULT_ENDPOINTS, DEFAULT_PREFIX, EtcdOptions, parse_endpoints
from flanneld_py.store.kube_options import (
    DEFAULT_ANNOTATION_PREFIX,
    DEFAULT_NET_CONFIG,
    KubeOptions,
    parse_annotation_prefix,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Mapping

    from flanneld_py.store.admin import StoreReader
    from flanneld_py.store.etcd_admin import EtcdAdmin

Result = TypeVar("Result")
Admin = TypeVar("Admin", bound="StoreReader")

_FLAGS = {
    "endpoints": "comma list of etcd endpoints",
    "prefix": "etcd prefix of the network",
    "cafile": "certificate authority file to check etcd by",
    "certfile": "client certificate file",
    "keyfile": "key file of the client certificate",
    "username": "etcd user name; its password is in --etcd-password-file or FLANNELD_ETCD_PASSWORD",
    "password-file": "file that holds the etcd password",
}
_KUBE_FLAGS = {
    "kubeconfig-file": "kubeconfig file, where the store is Kubernetes",
    "kube-api-url": "Kubernetes API server",
    "kube-annotation-prefix": "prefix of the Nodes' annotations",
    "net-config-path": "the configuration's file with Kubernetes",
}
_TOLD = {
    "kubeconfig_file": "kubeconfig",
    "kube_annotation_prefix": "annotation_prefix",
    "net_config_path": "net_config",
}
"""What the daemon calls them."""
_DEFAULTS = {"endpoints": DEFAULT_ENDPOINTS, "prefix": DEFAULT_PREFIX}


def add_store_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags by which the store is reached; whatever is not given is asked of the daemon."""
    add_daemon_flags(parser)
    for name, told in _FLAGS.items():
        parser.add_argument(f"--etcd-{name}", help=told)
    for name, told in _KUBE_FLAGS.items():
        parser.add_argument(f"--{name}", help=told)


def read_store(options: argparse.Namespace, work: Callable[[StoreReader], Awaitable[Result]]) -> Result:
    """Connect to the store, whichever it is, and return what the work reads there.

    Raises CtlError where the store does not answer.
    """
    told = _ask_about_store(options)
    if is_kubernetes(options, told):
        from flanneld_py.store.kube_admin import KubeAdmin

        return _run_connected(KubeAdmin(_pick_kube_options(options, told)), work)
    return _run_connected(_make_etcd_admin(options, told), work)


def work_in_etcd(
    options: argparse.Namespace, work: Callable[[EtcdAdmin], Awaitable[Result]], *, instead: str
) -> Result:
    """Connect to etcd, do the work and return its result; `instead` says what to do where the store is Kubernetes.

    Raises CtlError where etcd is not the store, or does not answer.
    """
    told = _ask_about_store(options)
    if is_kubernetes(options, told):
        raise CtlError(f"this cluster's store is Kubernetes: {instead}")
    return _run_connected(_make_etcd_admin(options, told), work)


def is_kubernetes(options: argparse.Namespace, told: Mapping[str, Any]) -> bool:
    """Say whether the store is Kubernetes: by flags, by the variable that the daemon heeds, or as the daemon says."""
    if options.kubeconfig_file or options.kube_api_url:
        return True
    if options.etcd_endpoints:
        return False
    return told.get("type") == "kubernetes" or os.environ.get("FLANNELD_KUBE_SUBNET_MGR", "").lower() in {
        "1",
        "t",
        "true",
    }


def _ask_about_store(options: argparse.Namespace) -> dict[str, Any]:
    try:
        return dict(ask(options.subnet_file, "status").get("store", {}))
    except NoDaemonError:
        return {}


def _run_connected(admin: Admin, work: Callable[[Admin], Awaitable[Result]]) -> Result:
    async def connected() -> Result:
        try:
            return await work(admin)
        finally:
            await admin.close()

    try:
        return asyncio.run(connected())
    except StoreError as error:
        raise CtlError(str(error)) from error


def _make_etcd_admin(options: argparse.Namespace, told: dict[str, Any]) -> EtcdAdmin:
    from flanneld_py.store.etcd_admin import EtcdAdmin  # gRPC, which commands without etcd need not load

    return EtcdAdmin(_pick_etcd_options(options, told))


def _pick_kube_options(options: argparse.Namespace, told: Mapping[str, Any]) -> KubeOptions:
    def pick(name: str, default: str = "") -> str:
        given: str | None = getattr(options, name)
        return given or os.environ.get(f"FLANNELD_{name.upper()}") or told.get(_TOLD.get(name, "")) or default

    prefix = pick("kube_annotation_prefix", DEFAULT_ANNOTATION_PREFIX)
    try:
        return KubeOptions(
            # Which Node is ours does not matter to whoever reads them all.
            node_name=told.get("node") or os.environ.get("NODE_NAME") or platform.node(),
            api_url=pick("kube_api_url"),
            kubeconfig=pick("kubeconfig_file"),
            service_host=os.environ.get("KUBERNETES_SERVICE_HOST", ""),
            service_port=os.environ.get("KUBERNETES_SERVICE_PORT", ""),
            annotation_prefix=parse_annotation_prefix(prefix),
            net_config=Path(pick("net_config_path", DEFAULT_NET_CONFIG)),
        )
    except ConfigError as error:
        raise CtlError(f"--{error}") from error


def _pick_etcd_options(options: argparse.Namespace, told: dict[str, Any]) -> EtcdOptions:
    """Return how etcd is reached. Raises CtlError."""
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
