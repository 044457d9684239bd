"""The arrows of the architecture: which layer may import which, and what core may import at all.

What the arrow table says beyond the picture in ARCHITECTURE.md: the command line also takes core's values and the
stores' options (it turns flags into them, without opening a connection), and every layer may read the package's own
version.
"""

import ast
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PROGRAMS = ("flanneld_py", "cni_plugin", "netns_lab")

ARROWS = {
    "flanneld_py.core": ("flanneld_py.core",),
    "flanneld_py.kernel": ("flanneld_py.kernel", "flanneld_py.core"),
    "flanneld_py.store": ("flanneld_py.store", "flanneld_py.core"),
    "flanneld_py.backends": ("flanneld_py.backends", "flanneld_py.core", "flanneld_py.kernel"),
    "flanneld_py.pods": ("flanneld_py.pods", "flanneld_py.core", "flanneld_py.kernel"),
    "flanneld_py.agent": (
        "flanneld_py.agent",
        "flanneld_py.backends",
        "flanneld_py.core",
        "flanneld_py.kernel",
        "flanneld_py.pods",
        "flanneld_py.store",
    ),
    "flanneld_py.cli": (
        "flanneld_py.cli",
        "flanneld_py.agent",
        "flanneld_py.core",
        "flanneld_py.store.etcd_options",
        "flanneld_py.store.kube_options",
    ),
    "flanneld_py.ctl": (
        "flanneld_py.ctl",
        "flanneld_py.backends",
        "flanneld_py.core",
        "flanneld_py.kernel",
        "flanneld_py.pods.label",
        "flanneld_py.store",
    ),
    "flanneld_py": (),
    "cni_plugin": ("cni_plugin", "flanneld_py.pods", "flanneld_py.core", "flanneld_py.kernel"),
    "netns_lab": ("netns_lab",),
}
"""Whose modules a layer may import; the longest name that fits a module is its layer."""

VERSION = "flanneld_py"
"""The top package holds the version and nothing else, so anyone may import it."""

CORE_MAY_IMPORT = frozenset(
    {
        "__future__",
        "base64",
        "bisect",
        "collections",
        "dataclasses",
        "enum",
        "functools",
        "heapq",
        "ipaddress",
        "itertools",
        "json",
        "marshal",
        "math",
        "re",
        "string",
        "struct",
        "typing",
    }
)
"""Modules of data: no input, no output, no clock, no randomness."""

CORE_MAY_NAME = frozenset({"random"})
"""What core may import for annotations only: the caller hands it in."""


class Import(NamedTuple):
    module: str
    names: tuple[str, ...]
    line: int
    for_types: bool


def read_imports(source, module, *, is_package=False):
    """Every import of a source text, wherever it stands, with relative names resolved."""
    package = module if is_package else module.rpartition(".")[0]
    found = []

    def visit(node, for_types):
        match node:
            case ast.Import(names=names):
                found.extend(Import(alias.name, (), node.lineno, for_types) for alias in names)
            case ast.ImportFrom(module=target, names=names, level=level):
                base = target or ""
                if level:
                    above = package.split(".")[: len(package.split(".")) - level + 1]
                    base = ".".join([*above, *([target] if target else [])])
                found.append(Import(base, tuple(alias.name for alias in names), node.lineno, for_types))
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                for child in node.body:
                    visit(child, True)
                for child in node.orelse:
                    visit(child, for_types)
            case _:
                for child in ast.iter_child_nodes(node):
                    visit(child, for_types)

    visit(ast.parse(source), False)
    return found


def find_violations(root):
    """Every import under `root` that goes against the arrows, as lines of text."""
    modules = {}
    for program in PROGRAMS:
        for path in sorted((root / program).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            modules[".".join(parts[:-1] if is_package else parts)] = (path, is_package)
    return [
        f"{path.relative_to(root)}:{found.line}: {problem}"
        for module, (path, is_package) in modules.items()
        for found in read_imports(path.read_text(encoding="utf-8"), module, is_package=is_package)
        for problem in judge(module, found, modules)
    ]


def judge(module, found, modules):
    layer = max((name for name in ARROWS if is_in(module, name)), key=len)
    # `from package import name` may import a module of that name.
    targets = [full if (full := f"{found.module}.{name}") in modules else found.module for name in found.names]
    for target in dict.fromkeys(targets or [found.module]):
        if target.partition(".")[0] in PROGRAMS:
            if target != VERSION and not any(is_in(target, allowed) for allowed in ARROWS[layer]):
                yield f"{layer} must not import {target}"
        elif layer == "flanneld_py.core":
            top = target.partition(".")[0]
            if top not in CORE_MAY_IMPORT and not (found.for_types and top in CORE_MAY_NAME):
                yield f"core is pure: it must not import {target}"
        if target == "flanneld_py" and any(name != "__version__" for name in found.names) and layer != "flanneld_py":
            yield f"{layer} takes {', '.join(found.names)} from the top package; only __version__ is there"


def is_in(module, package):
    return module == package or module.startswith(f"{package}.")


def test_the_code_follows_the_arrows():
    assert find_violations(ROOT) == []


def test_every_layer_is_looked_at():
    layers = {path.name for path in (ROOT / "flanneld_py").iterdir() if (path / "__init__.py").is_file()}
    assert {f"flanneld_py.{name}" for name in layers} == {name for name in ARROWS if name.startswith("flanneld_py.")}


PLANTED = {
    "core imports asyncio": ("flanneld_py/core/a.py", "import asyncio"),
    "core imports socket late": ("flanneld_py/core/a.py", "def f():\n    import socket"),
    "core imports from os": ("flanneld_py/core/a.py", "from os import path"),
    "core reads the clock": ("flanneld_py/core/a.py", "import time"),
    "core logs": ("flanneld_py/core/a.py", "import logging"),
    "core rolls dice": ("flanneld_py/core/a.py", "import random"),
    "core imports a library": ("flanneld_py/core/a.py", "import grpc"),
    "core looks up": ("flanneld_py/core/a.py", "from flanneld_py.kernel import b"),
    "core looks up for a type": (
        "flanneld_py/core/a.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from flanneld_py.kernel.b import B",
    ),
    "core looks up for an attribute-style type": (
        "flanneld_py/core/a.py",
        "import typing\nif typing.TYPE_CHECKING:\n    import socket",
    ),
    "core looks up, relatively": ("flanneld_py/core/a.py", "from ..store import b"),
    "core looks up in a branch": (
        "flanneld_py/core/a.py",
        "if 1:\n    try:\n        import flanneld_py.agent.b\n    finally: pass",
    ),
    "kernel imports store": ("flanneld_py/kernel/a.py", "from flanneld_py.store import b"),
    "store imports kernel": ("flanneld_py/store/a.py", "import flanneld_py.kernel.b"),
    "backends import store": ("flanneld_py/backends/a.py", "from flanneld_py.store.b import B"),
    "pods import agent": ("flanneld_py/pods/a.py", "from flanneld_py.agent.b import B"),
    "agent imports cli": ("flanneld_py/agent/a.py", "from flanneld_py.cli.b import B"),
    "cli imports another part of store": ("flanneld_py/cli/a.py", "from flanneld_py.store.etcd_client import C"),
    "cli imports the whole store": ("flanneld_py/cli/a.py", "from flanneld_py import store"),
    "ctl imports agent": ("flanneld_py/ctl/a.py", "def f():\n    from flanneld_py.agent.b import B"),
    "the plugin imports store": ("cni_plugin/a.py", "from flanneld_py.store.b import B"),
    "the plugin imports agent late": ("cni_plugin/a.py", "def f():\n    import flanneld_py.agent.b"),
    "the lab imports the daemon": ("netns_lab/a.py", "from flanneld_py.core.b import B"),
    "the daemon imports the lab": ("flanneld_py/agent/a.py", "import netns_lab.a"),
    "the top package imports": ("flanneld_py/__init__.py", "from flanneld_py.core.b import B"),
}


def plant(root, path, source):
    for program in PROGRAMS:
        (root / program).mkdir()
    for layer in ARROWS:
        folder = root.joinpath(*layer.split("."))
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").touch()
        (folder / "b.py").write_text("from __future__ import annotations\n")
    (root / path).write_text(source)
    return root


@pytest.mark.parametrize(("path", "source"), PLANTED.values(), ids=PLANTED)
def test_planted_violation_is_found(tmp_path, path, source):
    [violation] = find_violations(plant(tmp_path, path, source))
    line = max(number for number, text in enumerate(source.splitlines(), 1) if "import" in text)
    assert violation.startswith(f"{path}:{line}: ")


ALLOWED = {
    "core imports data modules": ("flanneld_py/core/a.py", "import json, ipaddress"),
    "core names a Random": (
        "flanneld_py/core/a.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from random import Random",
    ),
    "core imports core, relatively": ("flanneld_py/core/a.py", "from . import b\nfrom .b import B"),
    "kernel imports socket": ("flanneld_py/kernel/a.py", "import socket\nfrom flanneld_py.core import b"),
    "cli makes etcd options": ("flanneld_py/cli/a.py", "from flanneld_py.store.etcd_options import EtcdOptions"),
    "agent reads the version": ("flanneld_py/agent/a.py", "from flanneld_py import __version__"),
    "a string is no import": ("flanneld_py/core/a.py", "'''import socket'''"),
}


@pytest.mark.parametrize(("path", "source"), ALLOWED.values(), ids=ALLOWED)
def test_what_is_allowed_is_not_reported(tmp_path, path, source):
    assert find_violations(plant(tmp_path, path, source)) == []
