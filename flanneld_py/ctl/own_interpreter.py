"""An interpreter of the plugin's own: loader, libraries and standard library in a folder beside the executable.

Most images of Kubernetes nodes have no Python. What is copied is the interpreter that runs this, so that an init
container installs what its own image holds. A folder is made under another name first and is complete once it has its
name, which follows from its content; the one that was in use before stays, for calls that are under way.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from flanneld_py.ctl.errors import CtlError

FOLDER = ".flannel"
"""Of all interpreters, below that of the executables: runtimes look for plugins by name, and there is none of it."""

_PACKAGES = ("cni_plugin", "flanneld_py/__init__.py", "flanneld_py/core", "flanneld_py/kernel", "flanneld_py/pods")
_UNUSED = frozenset({"test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip", "pydoc_data"})
_UNUSED_PREFIXES = ("site-packages", "dist-packages", "config-")
_PROBE = """\
import contextlib, importlib, json, os, sys
sys.path.append(sys.argv[1])
for name in sys.argv[2:]:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
mapped = {line.split(None, 5)[5].strip() for line in open("/proc/self/maps") if line.count("/")}
json.dump({"mapped": sorted(mapped), "library": os.path.dirname(os.__file__)}, sys.stdout)
"""


class _Parts(NamedTuple):
    """What an interpreter consists of; `extensions` are modules of the standard library in machine code."""

    interpreter: Path
    library: Path
    loader: Path
    libraries: tuple[Path, ...]
    extensions: tuple[Path, ...]


def copy_interpreter(bin_dir: Path, packages: Path, code: str) -> tuple[bytes, list[str]]:
    """Copy interpreter and plugin below `bin_dir`; return the script that runs `code` there, and a line on each.

    `code` names the folder of the packages as `{folder}`. Raises CtlError or OSError.
    """
    parts = _find_parts(packages)
    home = bin_dir / FOLDER
    fresh = home / f"new-{os.getpid()}"
    try:
        _copy(parts, packages, fresh)
        tree = home / _digest(fresh)
        is_new = not tree.exists()
        if is_new:
            fresh.rename(tree)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    size = sum(file.stat().st_size for file in tree.rglob("*") if file.is_file()) / 1e6
    lines = [f"{tree}: {'written' if is_new else 'up to date'}, {size:.0f} MB"]
    words = (
        tree / "libraries" / parts.loader.name,
        "--library-path",
        tree / "libraries",
        tree / "bin" / parts.interpreter.name,
        "-IS",
        "-c",
        code.format(folder=ascii(str(tree / "packages"))),
    )
    return f'#!/bin/sh\nexec {shlex.join(map(str, words))} "$@"\n'.encode(), lines


def drop_others(bin_dir: Path, *scripts: bytes) -> None:
    """Remove interpreters that none of these scripts runs."""
    home = bin_dir / FOLDER
    for tree in home.iterdir() if home.is_dir() else ():
        if not any(os.fsencode(tree) in script for script in scripts):
            shutil.rmtree(tree, ignore_errors=True)


def _find_parts(packages: Path) -> _Parts:
    """Ask an interpreter that has imported all that the plugin may ever import what of it lies where."""
    interpreter = Path(os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable))
    command = [str(interpreter), "-IS", "-c", _PROBE, str(packages), *sorted(_imported(packages))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CtlError(f"{interpreter}: {done.stderr.strip()[-300:]}")
    told = json.loads(done.stdout)
    library = Path(told["library"])
    shared = [Path(name) for name in told["mapped"] if ".so" in Path(name).name]
    loader = next((file for file in shared if file.name.startswith("ld-")), None)
    if loader is None:
        raise CtlError(f"{interpreter} has no loader that could be copied: it is linked statically")
    return _Parts(
        interpreter,
        library,
        loader,
        tuple(file for file in shared if not file.is_relative_to(library)),
        tuple(file for file in shared if file.is_relative_to(library)),
    )


def _imported(packages: Path) -> set[str]:
    """Return the modules that the plugin's own import anywhere, however late."""
    found: set[str] = set()
    for part in _PACKAGES:
        place = packages / part
        for file in place.rglob("*.py") if place.is_dir() else (place,):
            for node in ast.walk(ast.parse(file.read_bytes())):
                if isinstance(node, ast.Import):
                    found.update(alias.name for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module:
                    found.add(node.module)
    return found


def _copy(parts: _Parts, packages: Path, target: Path) -> None:
    for folder in ("bin", "libraries"):
        (target / folder).mkdir(parents=True)
    shutil.copy2(parts.interpreter, target / "bin")
    for file in (parts.loader, *parts.libraries):
        shutil.copy2(file, target / "libraries")
        # A process tells the file that it has mapped; the loader looks for it by another name, which is a link to it.
        for name in _links_to(file):
            (target / "libraries" / name).symlink_to(file.name)
    library = target / "lib" / parts.library.name

    def leave_out(folder: str, names: list[str]) -> set[str]:
        is_top = Path(folder) == parts.library
        return {
            name
            for name in names
            if (is_top and (name in _UNUSED or name.startswith(_UNUSED_PREFIXES)))
            or name.endswith((".a", ".so", ".opt-1.pyc", ".opt-2.pyc"))
        }

    shutil.copytree(parts.library, library, ignore=leave_out)
    for file in parts.extensions:
        shutil.copy2(file, library / file.relative_to(parts.library))
    for part in _PACKAGES:
        source, place = packages / part, target / "packages" / part
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place)
        else:
            shutil.copy2(source, place)


def _links_to(library: Path) -> list[str]:
    """Return the names of the links beside a library that lead to it, as `libz.so.1` to `libz.so.1.3`."""
    beside = library.parent.glob(f"{library.name.partition('.so')[0]}.so*")
    return sorted(link.name for link in beside if link.is_symlink() and link.samefile(library))


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.suffix != ".pyc":  # which tells when, not what
            digest.update(os.fsencode(file.relative_to(folder)) + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]
