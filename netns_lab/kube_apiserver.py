"""A real kube-apiserver for labs and tests: where it is found, its secrets, and how it is started on an etcd.

Nothing else of Kubernetes runs: Nodes are made with their podCIDRs, as kube-controller-manager would have them.
"""

import os
import secrets
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from netns_lab.errors import LabError

VERSION = "v1.34.4"
SERVICE_RANGE = "10.96.0.0/16"
ADMIN = "admin"
FLANNEL = "system:serviceaccount:kube-flannel:flannel"
_GROUPS = {ADMIN: "system:masters", FLANNEL: "system:serviceaccounts,system:serviceaccounts:kube-flannel"}


@dataclass(frozen=True, slots=True)
class ApiServer:
    """An API server: the folder of its secrets, and where it serves."""

    folder: Path
    host: str
    port: int

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"https://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def ca(self) -> Path:
        """The certificate of the authority that it is known by."""
        return self.folder / "ca.crt"

    def token(self, user: str) -> str:
        """Return the token of ADMIN or FLANNEL."""
        return (self.folder / f"{user}.token").read_text()

    def write_secrets(self, names: Iterable[str] = ()) -> None:
        """Make certificates, for `names` as well, keys and tokens."""
        import trustme  # only labs with Kubernetes need it

        self.folder.mkdir(parents=True, exist_ok=True)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca)
        serving = authority.issue_cert(self.host, *names)
        serving.cert_chain_pems[0].write_to_path(self.folder / "server.crt")
        serving.private_key_pem.write_to_path(self.folder / "server.key")
        authority.issue_cert(self.host).private_key_pem.write_to_path(self.folder / "accounts.key")
        lines = []
        for user, groups in _GROUPS.items():
            token = secrets.token_hex(16)
            (self.folder / f"{user}.token").write_text(token)
            lines.append(f'{token},{user},{user},"{groups}"\n')
        (self.folder / "tokens.csv").write_text("".join(lines))

    def kubeconfig(self, user: str) -> str:
        """Return a kubeconfig for a user, as YAML."""
        authority = b64encode(self.ca.read_bytes()).decode()
        return (
            "apiVersion: v1\nkind: Config\ncurrent-context: lab\n"
            "contexts: [{name: lab, context: {cluster: lab, user: lab}}]\n"
            f"clusters: [{{name: lab, cluster: {{server: '{self.url}', certificate-authority-data: {authority}}}}}]\n"
            f"users: [{{name: lab, user: {{token: {self.token(user)}}}}}]\n"
        )

    def command(self, program: Path, etcd_servers: str) -> list[str]:
        """Return the command line."""
        return [
            str(program),
            f"--etcd-servers={etcd_servers}",
            f"--bind-address={self.host}",
            f"--advertise-address={self.host}",
            f"--secure-port={self.port}",
            f"--tls-cert-file={self.folder / 'server.crt'}",
            f"--tls-private-key-file={self.folder / 'server.key'}",
            f"--client-ca-file={self.ca}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            f"--service-account-key-file={self.folder / 'accounts.key'}",
            f"--service-account-signing-key-file={self.folder / 'accounts.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--authorization-mode=Node,RBAC",
            "--endpoint-reconciler-type=none",
            "--kubelet-preferred-address-types=InternalIP",
            "--allow-privileged=true",
            "--profiling=false",
        ]


def cache_folder() -> Path:
    """Return where what is built once for all checkouts lies."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "flanneld-py"


def find_kubernetes(name: str) -> Path:
    """Return one of the executables that `make kubernetes` has built. Raises LabError."""
    folder = Path(os.environ.get("KUBE_PROGRAMS") or cache_folder() / f"kubernetes-{VERSION}")
    path = folder / name
    if not os.access(path, os.X_OK):
        raise LabError(f"there is no {name} in {folder}: make kubernetes builds it (it needs go)")
    return path
