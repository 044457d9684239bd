"""What a secure etcd of the lab needs: certificates of its own authority, and a user for the daemons.

The certificates are made with openssl(1), for a day. Nodes get a copy below their own /run.
"""

import shutil
import subprocess
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from netns_lab.errors import LabError
from netns_lab.folder import LabFolder
from netns_lab.topology import Node, Topology

USER = "flannel"
PASSWORD = "lab"  # noqa: S105  # of a lab that nobody else reaches
ROOT = "root"
SECONDS = 30.0
NODE_FOLDER = Path("/run/etcd")
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def certificates_of(folder: LabFolder) -> Path:
    """Return where the lab's certificates lie."""
    return folder.etcd("certificates")


def make_certificates(folder: LabFolder, topology: Topology) -> None:
    """Make an authority, one certificate for all members and one for all daemons. Raises LabError."""
    if shutil.which("openssl") is None:
        raise LabError("a secure etcd needs certificates, which openssl makes: apt-get install openssl")
    place = certificates_of(folder)
    place.mkdir(parents=True)
    _run("req", "-x509", *KEY, "-keyout", place / "ca.key", "-out", place / "ca.crt", "-days", 1, "-subj", "/CN=lab")
    issue(place, "server", [member.address.ip for member in topology.etcd])
    issue(place, "client", [])
    (place / "password").write_text(PASSWORD)


def issue(place: Path, name: str, addresses: Sequence[IPv4Address | IPv6Address]) -> None:
    """Issue a certificate and its key, in the place of former ones. Raises LabError."""
    names = ",".join(["DNS:lab", *(f"IP:{address}" for address in addresses)])
    request, extension = place / f"{name}.csr", place / f"{name}.ext"
    extension.write_text(f"subjectAltName={names}\n")
    fresh = place / f"{name}.new"
    _run("req", *KEY, "-keyout", place / f"{name}.key", "-out", request, "-subj", f"/CN={USER}")
    authority = ("-CA", place / "ca.crt", "-CAkey", place / "ca.key", "-CAcreateserial")
    _run("x509", "-req", "-in", request, *authority, "-days", 1, "-extfile", extension, "-out", fresh)
    fresh.replace(place / f"{name}.crt")


def member_flags(folder: LabFolder) -> list[str]:
    """Return what a member is told of its certificates."""
    place = certificates_of(folder)
    return [
        f"--cert-file={place / 'server.crt'}",
        f"--key-file={place / 'server.key'}",
        f"--trusted-ca-file={place / 'ca.crt'}",
        "--client-cert-auth",
    ]


def daemon_flags(folder: LabFolder, node: Node) -> list[str]:
    """Give a node its copy of what its daemon needs, and return the flags that name it."""
    copy = folder.node(node.name) / "run" / NODE_FOLDER.relative_to("/run")
    copy.mkdir(mode=0o700, exist_ok=True)
    for name in ("ca.crt", "client.crt", "client.key", "password"):
        shutil.copy(certificates_of(folder) / name, copy / name)
    return [
        f"--etcd-cafile={NODE_FOLDER / 'ca.crt'}",
        f"--etcd-certfile={NODE_FOLDER / 'client.crt'}",
        f"--etcd-keyfile={NODE_FOLDER / 'client.key'}",
        f"--etcd-username={USER}",
        f"--etcd-password-file={NODE_FOLDER / 'password'}",
    ]


def _run(*words: object) -> None:
    command = ["openssl", *map(str, words)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip()[-300:]}")
