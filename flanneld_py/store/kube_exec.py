"""Credential plugins: running the command of a kubeconfig, and keeping what it gave until it expires.

The protocol is client.authentication.k8s.io/v1 and v1beta1 (Kubernetes, "client-go credential plugins").
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from flanneld_py.core.errors import StoreError

if TYPE_CHECKING:
    from flanneld_py.store.kube_access import ExecCommand, KubeAccess

_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_TIMEOUT = 60.0
"""Seconds that a plugin may take; some ask a cloud."""
_MARGIN = 10.0
"""Seconds before its end from which a credential counts as expired."""
_LONGEST_TEXT = 200


class Credential(NamedTuple):
    """What a plugin gave; `expires` in seconds since the epoch, None for as long as it is taken."""

    token: str
    certificate: bytes
    key: bytes
    expires: float | None


class ExecCredentials:
    """The credential of the plugin that is used now, run anew when it expires or is no longer taken."""

    def __init__(self) -> None:
        self._command: ExecCommand | None = None
        self._credential: Credential | None = None
        self._lock = asyncio.Lock()

    async def get(self, command: ExecCommand, access: KubeAccess) -> Credential:
        """Return a credential, from the plugin where we have none that is good. Raises StoreError."""
        async with self._lock:
            known = self._credential if command == self._command else None
            if known is None or (known.expires is not None and known.expires - _MARGIN < time.time()):
                known = await _run_plugin(command, access)
            self._command, self._credential = command, known
            return known

    def forget(self) -> None:
        """Have the plugin run again: what it gave is no longer taken."""
        self._credential = None


async def _run_plugin(command: ExecCommand, access: KubeAccess) -> Credential:
    if command.api_version not in _VERSIONS:
        raise StoreError(
            f"exec {command.command}: apiVersion {command.api_version!r} is none of {', '.join(_VERSIONS)}"
        )
    environ = {**os.environ, **dict(command.environ), "KUBERNETES_EXEC_INFO": json.dumps(_describe(command, access))}
    try:
        process = await asyncio.create_subprocess_exec(
            command.command,
            *command.args,
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        hint = f"; {command.install_hint}" if command.install_hint else ""
        raise StoreError(f"exec {command.command}: {error.strerror}{hint}") from error
    try:
        async with asyncio.timeout(_TIMEOUT):
            told, complaint = await process.communicate()
    except TimeoutError as error:
        raise StoreError(f"exec {command.command}: it took over {_TIMEOUT:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        text = complaint.decode(errors="replace").strip()[-_LONGEST_TEXT:]
        raise StoreError(f"exec {command.command}: exit status {process.returncode}: {text}")
    return _parse_credential(command, told)


def _describe(command: ExecCommand, access: KubeAccess) -> dict[str, Any]:
    spec: dict[str, Any] = {"interactive": False}
    if command.provide_cluster:
        cluster: dict[str, Any] = {"server": str(access.server)}
        if access.server_name:
            cluster["tls-server-name"] = access.server_name
        if access.insecure:
            cluster["insecure-skip-tls-verify"] = True
        if access.ca:
            cluster["certificate-authority-data"] = base64.b64encode(access.ca.read()).decode()
        spec["cluster"] = cluster
    return {"apiVersion": command.api_version, "kind": "ExecCredential", "spec": spec}


def _parse_credential(command: ExecCommand, told: bytes) -> Credential:
    """Read an ExecCredential; what is told in an error never quotes it, for it is a secret."""
    try:
        value = json.loads(told)
        if value["apiVersion"] != command.api_version:
            raise StoreError(f"exec {command.command}: it answered in another apiVersion than {command.api_version}")
        status = value["status"]
        expires = status.get("expirationTimestamp")
        credential = Credential(
            str(status.get("token") or ""),
            str(status.get("clientCertificateData") or "").encode(),
            str(status.get("clientKeyData") or "").encode(),
            None if expires is None else datetime.fromisoformat(expires).timestamp(),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"exec {command.command}: what it printed is no ExecCredential") from error
    if not credential.token and not credential.certificate:
        raise StoreError(f"exec {command.command}: it gave neither a token nor a certificate")
    return credential
