"""Builds flanneld-py_VERSION_ARCH.deb: programs with the libraries that the lock pins, unit, manual pages, completion.

    python deploy/debian/build.py FOLDER        (make deb)

The libraries lie in a folder of ours and are nobody else's business, so Debian's own versions do not matter. Needs
dpkg-deb, and runs by the Python whose version Debian's python3 has.
"""

import gzip
import re
import shutil
import subprocess
import sys
from email.utils import formatdate
from importlib.metadata import requires
from pathlib import Path

from flanneld_py import __version__

ROOT = Path(__file__).resolve().parent.parent.parent
LIBRARY = "usr/lib/flanneld-py"
PROGRAMS = {
    "flanneld": "flanneld_py.cli.main",
    "flannelctl": "flanneld_py.ctl.main",
}
FILES = {
    "systemd/flanneld.service": "usr/lib/systemd/system/flanneld.service",
    "systemd/flanneld.env": "etc/flanneld-py/flanneld.env",
    "systemd/flanneld.tmpfiles": "usr/lib/tmpfiles.d/flanneld.conf",
    "systemd/10-flannel.link": "usr/lib/systemd/network/10-flannel.link",
    "systemd/10-flannel.network": "usr/lib/systemd/network/10-flannel.network",
    "NetworkManager/90-flannel.conf": "usr/lib/NetworkManager/conf.d/90-flannel.conf",
    "debian/copyright": "usr/share/doc/flanneld-py/copyright",
    "debian/lintian-overrides": "usr/share/lintian/overrides/flanneld-py",
}
SCRIPTS = {
    # Its restart is an upgrade's whole interruption: what it has programmed stays.
    "postinst": """\
#!/bin/sh
set -e
if [ "$1" = configure ] && [ -d /run/systemd/system ]; then
    systemd-tmpfiles --create flanneld.conf
    systemctl daemon-reload
    # What keeps them off our devices counts once they have read it.
    if systemctl --quiet is-active systemd-networkd; then networkctl reload || true; fi
    if systemctl --quiet is-active NetworkManager; then systemctl reload NetworkManager || true; fi
    systemctl try-restart flanneld.service
fi
""",
    "prerm": """\
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl disable --now flanneld.service
fi
""",
    "postrm": """\
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
if [ "$1" = purge ]; then
    rm -rf /etc/flanneld-py
    # Where pods are left, they and whoever serves them next go by what is in these: flannelctl cleanup empties them.
    for folder in /run/flannel /var/lib/cni/flannel /var/lib/cni; do
        [ ! -d $folder ] || rmdir --ignore-fail-on-non-empty $folder
    done
fi
""",
}
CHANGELOG = """\
flanneld-py ({version}) unstable; urgency=medium

  * CHANGELOG.md in the source has what changed.

 -- {maintainer}  {date}
"""
WRAPPER = """\
#!/usr/bin/python3 -I
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "lib", "flanneld-py"))
from {module} import main

sys.exit(main())
"""
MAINTAINER = "the flanneld-py authors <flanneld-py@example.invalid>"
LIBC = "2.17"
"""What wheels of the platform manylinux2014 are built against (PEP 599)."""
CONTROL = """\
Package: flanneld-py
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer}
Depends: libc6 (>= {libc}), python3 (>= {python}), python3 (<< {next_python}), iptables
Section: net
Priority: optional
Description: overlay network daemon and CNI plugin, compatible with flannel
 Gives each node a subnet, and has the kernel carry packets between the nodes' pods and containers.
"""


def main() -> int:
    """Build the package into the folder that the command line names, and print where it is."""
    if len(sys.argv) != 2:
        sys.exit("usage: build.py FOLDER")
    target = Path(sys.argv[1]).resolve()
    tree = target / "deb"
    shutil.rmtree(tree, ignore_errors=True)
    architecture = output("dpkg", "--print-architecture")
    check_python()
    install_packages(tree)
    write_files(tree)
    minor = sys.version_info.minor
    control = CONTROL.format(
        version=__version__,
        architecture=architecture,
        maintainer=MAINTAINER,
        libc=LIBC,
        python=f"3.{minor}",
        next_python=f"3.{minor + 1}",
    )
    write(tree / "DEBIAN" / "control", control.encode())
    write(tree / "DEBIAN" / "conffiles", b"/etc/flanneld-py/flanneld.env\n")
    for name, script in SCRIPTS.items():
        write(tree / "DEBIAN" / name, script.encode(), 0o755)
    package = target / f"flanneld-py_{__version__}_{architecture}.deb"
    output("dpkg-deb", "--root-owner-group", "--build", str(tree), str(package))
    shutil.rmtree(tree)
    print(package)
    return 0


def check_python() -> None:
    """End where Debian's python3 could not load what is compiled for this one."""
    there = output("/usr/bin/python3", "-c", "import sys; print(*sys.version_info[:2])")
    if there != f"3 {sys.version_info.minor}":
        sys.exit(
            f"/usr/bin/python3 is {there.replace(' ', '.')}: build with that version (make PYTHON=/usr/bin/python3)"
        )


def install_packages(tree: Path) -> None:
    """Install our packages and what they need, as pinned and hashed in the lock."""
    library = tree / LIBRARY
    lock = tree / "requirements.txt"
    write(lock, locked_requirements().encode())
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile")
    output(*pip, "--require-hashes", "--no-deps", "--target", str(library), "-r", str(lock))
    output(*pip, "--no-deps", "--no-build-isolation", "--target", str(library), "--upgrade", str(ROOT))
    lock.unlink()
    for folder in ("bin", "netns_lab"):  # the lab is for developers
        shutil.rmtree(library / folder, ignore_errors=True)
    # The unit's sandbox could not keep what Python compiles, and every start would compile all of it.
    flags = ("-q", "--invalidation-mode", "unchecked-hash", "-s", str(tree), "-p", "/")
    output(sys.executable, "-m", "compileall", *flags, str(library))


def locked_requirements() -> str:
    """Return the part of the lock that the installed programs need."""
    named = [re.split(r"[^a-z0-9-]", one.lower())[0] for one in requires("flanneld-py") or () if "extra ==" not in one]
    blocks = re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text())
    return "\n".join(block for block in blocks if block.split("==")[0] in named) + "\n"


def write_files(tree: Path) -> None:
    """Write programs, units, manual pages, completion, and what Debian wants to know."""
    for name, module in PROGRAMS.items():
        write(tree / "usr/bin" / name, WRAPPER.format(module=module).encode(), 0o755)
    for name, place in FILES.items():
        mode = 0o600 if name.endswith(".env") else 0o644
        write(tree / place, (ROOT / "deploy" / name).read_bytes(), mode)
    for page in (tree / LIBRARY / "share/man").glob("*/*"):
        if page.stem in PROGRAMS:
            place = f"{page.parent.name}/{page.name}.gz"
            write(tree / "usr/share/man" / place, gzip.compress(page.read_bytes(), mtime=0))
    shutil.rmtree(tree / LIBRARY / "share")
    date = formatdate((ROOT / "CHANGELOG.md").stat().st_mtime)
    changelog = CHANGELOG.format(version=__version__, maintainer=MAINTAINER, date=date)
    write(tree / "usr/share/doc/flanneld-py/changelog.gz", gzip.compress(changelog.encode(), mtime=0))
    completion = output(str(Path(sys.executable).with_name("flannelctl")), "completion", "bash")
    write(tree / "usr/share/bash-completion/completions/flannelctl", f"{completion}\n".encode())


def write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


def output(*command: str) -> str:
    """Run a command and return what it prints; end with what it complains of."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command[:3])} …: {done.stderr.strip()[-500:]}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
