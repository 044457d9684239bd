"""`flannelctl cni install`: the plugin's executable and a network configuration, where container runtimes look.

What is written is decided by `cni_files`; here it is put in place, each file whole or not at all.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flanneld_py.ctl.cni_files import (
    CODE,
    SHELL,
    encode_conflist,
    encode_executable,
    encode_ringing_executable,
    written_conflists,
)
from flanneld_py.ctl.errors import CtlError
from flanneld_py.ctl.files import put_in_place
from flanneld_py.ctl.own_interpreter import FOLDER, copy_interpreter, drop_others

if TYPE_CHECKING:
    import argparse

    from flanneld_py.ctl.subparsers import Subparsers

EXECUTABLE = "flannel"
CONFLIST = "10-flannel.conflist"

_BIN_DIR = Path("/opt/cni/bin")
_CONF_DIR = Path("/etc/cni/net.d")


def register(subcommands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `cni` to the command line."""
    parser = subcommands.add_parser("cni", help="the CNI plugin", description="Looks after the CNI plugin.")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    install_parser = verbs.add_parser(
        "install",
        help="put the plugin and a network configuration in place",
        description=f"Writes the executable {EXECUTABLE!r} and {CONFLIST}. A changed {CONFLIST} is left alone.",
    )
    install_parser.add_argument("--bin-dir", type=Path, default=_BIN_DIR, help="for executables (%(default)s)")
    install_parser.add_argument("--conf-dir", type=Path, default=_CONF_DIR, help="for configurations (%(default)s)")
    install_parser.add_argument(
        "--with-interpreter",
        action="store_true",
        help=f"copy this Python beside the executable, into {FOLDER}, for a host that has none",
    )
    install_parser.set_defaults(run=_run_install)


def _run_install(options: argparse.Namespace) -> int:
    for line in install(options.bin_dir, options.conf_dir, with_interpreter=options.with_interpreter):
        print(line)
    return 0


def install(bin_dir: Path, conf_dir: Path, *, with_interpreter: bool = False) -> list[str]:
    """Put executable and conflist in place, and return a line on each. Raises CtlError."""
    lines: list[str] = []
    try:
        former = _read(bin_dir / EXECUTABLE) or b""
        if with_interpreter:
            executable, lines = copy_interpreter(bin_dir, _package_folder(), CODE)
        else:
            interpreter = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
            encode = encode_ringing_executable if os.access(SHELL, os.X_OK) else encode_executable
            executable = encode(interpreter, str(_package_folder()))
        lines += [
            _install_executable(bin_dir / EXECUTABLE, executable),
            _install_conflist(conf_dir / CONFLIST, has_portmap=os.access(bin_dir / "portmap", os.X_OK)),
        ]
        drop_others(bin_dir, former, executable)
    except OSError as error:
        raise CtlError(f"{error.filename}: {error.strerror}") from error
    return lines


def _package_folder() -> Path:
    spec = importlib.util.find_spec("cni_plugin")
    if spec is None or spec.origin is None:
        raise CtlError("the package cni_plugin is not installed beside flanneld_py: install flanneld-py anew")
    return Path(spec.origin).resolve().parent.parent


def _install_executable(path: Path, content: bytes) -> str:
    former = _read(path)
    if former == content:
        return f"{path}: up to date"
    put_in_place(path, content, 0o755)
    return f"{path}: written" if former is None else f"{path}: written in place of another one"


def _install_conflist(path: Path, *, has_portmap: bool) -> str:
    content = encode_conflist(has_portmap=has_portmap)
    former = _read(path)
    if former == content:
        return f"{path}: up to date"
    if former is not None and former not in written_conflists():
        return f"{path}: left alone, since it was changed; delete it and install again to have a new one"
    put_in_place(path, content, 0o644)
    plugins = "flannel and portmap" if has_portmap else "flannel; portmap is not installed, so no port is published"
    return f"{path}: written, for {plugins}"


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
