import subprocess
import sys
from pathlib import Path

import pytest

from flanneld_py.core.named_tuple import NamedTuple


class Point(NamedTuple):
    """A point."""

    x: int
    y: int = 7

    @property
    def total(self):
        return self.x + self.y


def test_behaves_as_that_of_typing():
    point = Point(1)
    assert point == (1, 7)
    assert point == Point(y=7, x=1)
    assert hash(point) == hash((1, 7))
    assert repr(point) == "Point(x=1, y=7)"
    assert point._replace(y=2).total == 3
    assert Point.__doc__ == "A point."
    assert Point.__module__ == __name__
    match point:
        case Point(x, y):
            assert (x, y) == (1, 7)
    with pytest.raises(AttributeError):
        point.x = 2
    with pytest.raises(AttributeError):
        point.z = 2
    with pytest.raises(TypeError):
        Point()


def test_the_cni_plugin_loads_none_of_the_slow_modules():
    root = str(Path(__file__).parents[2])
    code = f"""\
import sys
sys.path.append({root!r})
import cni_plugin.main
from flanneld_py.pods import attach, check, detach, invocation, verbs
print(" ".join(sys.modules))
"""
    done = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True)
    slow = {"typing", "re", "json", "enum", "dataclasses", "ipaddress", "socket", "logging", "asyncio", "pathlib"}
    assert slow.isdisjoint(done.stdout.split())
