"""`flannelctl install systemd`: the unit and what belongs to it, where systemd looks, for the flanneld of this package.

What is installed are the files of `deploy/systemd` and `deploy/NetworkManager`, with the path of our own executable in
the unit.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flanneld_py.ctl.errors import CtlError
from flanneld_py.ctl.files import put_in_place

if TYPE_CHECKING:
    import argparse

    from flanneld_py.ctl.subparsers import Subparsers

_UNIT = "systemd/flanneld.service"
_ENVIRONMENT = "systemd/flanneld.env"
_PLACES = {
    _UNIT: "etc/systemd/system/flanneld.service",
    _ENVIRONMENT: "etc/flanneld-py/flanneld.env",
    "systemd/flanneld.tmpfiles": "etc/tmpfiles.d/flanneld.conf",
    "systemd/10-flannel.link": "etc/systemd/network/10-flannel.link",
    "systemd/10-flannel.network": "etc/systemd/network/10-flannel.network",
    "NetworkManager/90-flannel.conf": "etc/NetworkManager/conf.d/90-flannel.conf",
}
_PACKAGED = "/usr/bin/flanneld"
"""Where the unit finds flanneld as it comes in the package."""
_HOMES = ("/home", "/root", "/run/user")
"""What systemd hides with ProtectHome (systemd.exec(5))."""
_SECRET_MODE, _MODE = 0o600, 0o644


def register(subcommands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `install` to the command line."""
    parser = subcommands.add_parser("install", help="put flanneld into this host's service manager")
    kinds = parser.add_subparsers(metavar="KIND", required=True)
    systemd = kinds.add_parser(
        "systemd",
        help="unit, environment file, tmpfiles, and what keeps other programs off our devices",
        description="Writes flanneld's unit, and what keeps udev, systemd-networkd and NetworkManager off our devices. "
        "A changed environment file is left alone.",
    )
    systemd.add_argument("--root", type=Path, default=Path("/"), help="folder that stands for / (%(default)s)")
    systemd.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    flanneld = Path(sys.argv[0]).resolve().with_name("flanneld")
    for line in install(options.root, flanneld):
        print(line)
    if any(flanneld.is_relative_to(home) for home in _HOMES):
        print(f"warning: the unit hides {flanneld} from itself (ProtectHome=): install flanneld-py outside of homes")
    print("next, where they run: networkctl reload, systemctl reload NetworkManager")
    print("next: systemctl daemon-reload && systemctl enable --now flanneld")
    return 0


def install(root: Path, flanneld: Path) -> list[str]:
    """Put the files in place below `root` and return a line on each. Raises CtlError."""
    source = _find_source()
    lines = []
    try:
        for name, place in _PLACES.items():
            content = (source / name).read_bytes()
            path = root / place
            if name == _UNIT:
                content = content.replace(_PACKAGED.encode(), str(flanneld).encode())
            if name == _ENVIRONMENT and path.exists():
                lines.append(f"{path}: left alone")
                continue
            # The environment may come to hold etcd's password.
            put_in_place(path, content, _SECRET_MODE if name == _ENVIRONMENT else _MODE)
            lines.append(f"{path}: written")
    except OSError as error:
        raise CtlError(f"{error.filename}: {error.strerror}") from error
    return lines


def _find_source() -> Path:
    """Return the folder of the files: in the installed package, or in the checkout that it runs from."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "deploy", package.parent / "deploy"):
        if (folder / _UNIT).is_file():
            return folder
    raise CtlError("the unit files are not installed beside flanneld_py: install flanneld-py anew")
