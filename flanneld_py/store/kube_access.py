"""KubeAccess: where an API server is, how it is known for the right one, and as whom we come.

Owns the three sources: the pod's service account, a kubeconfig file, and an address alone. Files are named here and
read anew for every connection or request, so that what is rotated is taken up. Never puts a secret into a text.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from flanneld_py.core.errors import StoreError

if TYPE_CHECKING:
    from flanneld_py.store.kube_options import KubeOptions

_PORTS = {"http": 80, "https": 443}
_UNSUPPORTED = {
    "proxy-url": "a proxy",
    "auth-provider": "an auth-provider, which kubectl has dropped for exec,",
    "as": "impersonation",
}


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """The API server's address; `path` is what it has before `/api`, without a slash at the end."""

    host: str
    port: int
    secure: bool
    path: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}{self.path}"


@dataclass(frozen=True, slots=True)
class Pem:
    """Certificates or a key: a file to be read when they are needed, or what they are."""

    file: str = ""
    data: bytes = field(default=b"", repr=False)

    def __bool__(self) -> bool:
        return bool(self.file or self.data)

    def read(self) -> bytes:
        """Return the PEM text; raise StoreError where the file cannot be read."""
        if not self.file:
            return self.data
        try:
            return Path(self.file).read_bytes()
        except OSError as error:
            raise StoreError(f"{self.file}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class ExecCommand:
    """A credential plugin of the kubeconfig: a command that prints an ExecCredential (client.authentication.k8s.io)."""

    api_version: str
    command: str
    args: tuple[str, ...] = ()
    environ: tuple[tuple[str, str], ...] = ()
    provide_cluster: bool = False
    install_hint: str = ""


@dataclass(frozen=True, slots=True)
class KubeAccess:
    """One way to one API server; what is not given is empty. `source` names where it comes from, for messages."""

    source: str
    server: ServerUrl
    ca: Pem = Pem()
    insecure: bool = False
    server_name: str = ""
    certificate: Pem = Pem()
    key: Pem = Pem()
    token: str = field(default="", repr=False)
    token_file: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    exec: ExecCommand | None = None


def read_access(options: KubeOptions) -> KubeAccess:
    """Return the way to the API server that the options name, as it is now. Raises StoreError."""
    if options.kubeconfig:
        access = _read_kubeconfig(Path(options.kubeconfig))
        return replace(access, server=parse_server(options.api_url, "--kube-api-url")) if options.api_url else access
    if options.api_url:
        return KubeAccess("--kube-api-url", parse_server(options.api_url, "--kube-api-url"))
    host, folder = options.service_host, options.service_account
    try:
        server = ServerUrl(host, int(options.service_port), secure=True)
    except ValueError as error:
        raise StoreError(f"KUBERNETES_SERVICE_PORT: {options.service_port[:20]!r} is no port") from error
    return KubeAccess("service account", server, ca=Pem(str(folder / "ca.crt")), token_file=str(folder / "token"))


def parse_server(text: str, source: str) -> ServerUrl:
    """Read an API server's address; raise StoreError naming `source`."""
    url = urlsplit(text if "://" in text else f"http://{text}")
    port = _read_port(url)
    if url.scheme not in _PORTS or not url.hostname or port is None or url.username is not None:
        # A user and password in the address would be repeated here.
        shown = "an address with a user in it" if "@" in text else repr(text[:80])
        raise StoreError(f"{source}: {shown} is no address; expected one like https://10.0.0.1:6443")
    return ServerUrl(url.hostname, port, url.scheme == "https", url.path.rstrip("/"))


def _read_port(url: SplitResult) -> int | None:
    try:
        return url.port or _PORTS.get(url.scheme)
    except ValueError:
        return None


def _read_kubeconfig(path: Path) -> KubeAccess:
    try:
        config = _parse_document(path.read_text(encoding="utf-8"))
        context = _named(config, "contexts", "context", str(config.get("current-context") or ""))
        cluster = _named(config, "clusters", "cluster", str(context.get("cluster") or ""))
        name = str(context.get("user") or "")
        user = _named(config, "users", "user", name) if name else {}
        _refuse_unsupported({**cluster, **user})
        return KubeAccess(
            source=f"kubeconfig {path}",
            server=parse_server(str(cluster.get("server") or ""), f"kubeconfig {path}: server"),
            ca=_pem(path, cluster, "certificate-authority"),
            insecure=cluster.get("insecure-skip-tls-verify") is True,
            server_name=str(cluster.get("tls-server-name") or ""),
            certificate=_pem(path, user, "client-certificate"),
            key=_pem(path, user, "client-key"),
            token=str(user.get("token") or ""),
            token_file=_beside(path, str(user.get("tokenFile") or "")),
            username=str(user.get("username") or ""),
            password=str(user.get("password") or ""),
            exec=_parse_exec(path, user.get("exec")),
        )
    except OSError as error:
        raise StoreError(f"kubeconfig {path}: {error.strerror}") from error
    except ValueError as error:
        raise StoreError(f"kubeconfig {path}: {error}") from error


def _refuse_unsupported(fields: dict[str, Any]) -> None:
    for key, what in _UNSUPPORTED.items():
        if fields.get(key):
            raise ValueError(f"{key}: {what} is not supported")


def _parse_document(text: str) -> dict[str, Any]:
    """Read JSON or YAML; raise ValueError, without the text, which holds secrets."""
    try:
        value = json.loads(text)
    except ValueError:
        import yaml  # late: only kubeconfigs need it

        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f" at line {mark.line + 1}" if mark is not None else ""
            raise ValueError(f"it is no YAML{where}: {getattr(error, 'problem', None) or 'unreadable'}") from None
    if not isinstance(value, dict):
        raise ValueError("it is no mapping")  # noqa: TRY004 - bad data, not a caller's wrong type
    return value


def _named(config: dict[str, Any], listing: str, kind: str, name: str) -> dict[str, Any]:
    if not name:
        raise ValueError(f"it names no {'current-context' if kind == 'context' else kind}")
    entries = config.get(listing)
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(kind), dict):
            found: dict[str, Any] = entry[kind]
            return found
    raise ValueError(f"there is no {kind} {name!r} in {listing}")


def _pem(path: Path, fields: dict[str, Any], key: str) -> Pem:
    data = fields.get(f"{key}-data")
    if data:
        try:
            return Pem(data=base64.b64decode(str(data), validate=True))
        except binascii.Error as error:
            raise ValueError(f"{key}-data is no base64") from error
    return Pem(_beside(path, str(fields.get(key) or "")))


def _beside(path: Path, name: str) -> str:
    """Return a file that is named in a kubeconfig: a relative name counts from the kubeconfig's folder."""
    return str(path.parent / name) if name else ""


def _parse_exec(path: Path, value: Any) -> ExecCommand | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not value.get("command") or not value.get("apiVersion"):
        raise ValueError("exec: it needs apiVersion and command")
    if value.get("interactiveMode") == "Always":
        raise ValueError("exec: interactiveMode Always needs somebody at a terminal, and nobody is there")
    command = str(value["command"])
    return ExecCommand(
        api_version=str(value["apiVersion"]),
        command=_beside(path, command) if "/" in command else command,
        args=tuple(map(str, value.get("args") or ())),
        environ=tuple((str(one["name"]), str(one["value"])) for one in value.get("env") or ()),
        provide_cluster=value.get("provideClusterInfo") is True,
        install_hint=str(value.get("installHint") or ""),
    )
