"""The tables of docs/ are what the programs' parsers say."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flanneld_py.backends.registry import BACKENDS
from flanneld_py.core.errors import ConfigError
from flanneld_py.ctl.net import change_config, judge_config

ROOT = Path(__file__).parents[2]
FLAGS = (ROOT / "docs" / "flags.md").read_text()
KEYS = dict(re.findall(r"^\| `([A-Za-z0-9.]+)` \|[^|]*\| (\w+)", FLAGS, re.MULTILINE))
"""Each with the first word about it, which for a key of a backend is its name."""


def test_tables_are_up_to_date():
    done = subprocess.run([sys.executable, ".ci/write_docs.py", "--check"], cwd=ROOT, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_the_flags_named_in_text_are_there():
    from flanneld_py.cli.flanneld_flags import FLAGS as THERE

    named = set(re.findall(r"`--([a-z0-9_-]+)", FLAGS))
    assert named - {flag.name for flag in THERE} <= {"x", "dry-run"}


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_is_documented_is_one_that_the_parser_judges(key):
    """A value that fits no key is refused, by this key's name."""
    kind = KEYS[key] if KEYS[key] in BACKENDS else "vxlan"
    backend = f'"Backend":{{"Type":"{kind}"}}'
    base = f'{{"Network":"10.5.0.0/16","IPv6Network":"fd42::/48","EnableIPv6":true,{backend}}}'
    with pytest.raises(ConfigError, match=re.escape(key.removeprefix("Backend."))):
        judge_config(change_config(base, [f"{key}={{}}"]))


def test_a_key_that_the_parser_takes_is_documented():
    sources = [ROOT / "flanneld_py/core/network_config.py", *(ROOT / "flanneld_py/backends").glob("*.py")]
    taken = {
        argument.value
        for file in sources
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"integer", "boolean"}
        for argument in node.args[1:2]
        if isinstance(argument, ast.Constant)
    }
    assert len(taken) >= 9
    of_backends = re.findall(r"^\| `?([A-Za-z0-9]+)`? \|", (ROOT / "docs" / "backends.md").read_text(), re.MULTILINE)
    assert taken <= {key.removeprefix("Backend.") for key in KEYS} | set(of_backends)
