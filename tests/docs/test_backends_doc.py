"""The backend that docs/backends.md shows as an example works, and is as short as it says."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from flanneld_py.backends import registry
from flanneld_py.backends.backend import Ground
from flanneld_py.core.entries import Route
from flanneld_py.core.errors import ConfigError
from flanneld_py.core.lease import Lease, LeaseAttrs, encode_attrs
from flanneld_py.core.prefix import parse_prefix
from tests.backends.nodes import ip, make_backend

DOCUMENT = Path(__file__).parents[2] / "docs" / "backends.md"


@pytest.fixture
def gateway(tmp_path, monkeypatch):
    [text] = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    file = tmp_path / "gateway.py"
    file.write_text(text)
    spec = importlib.util.spec_from_file_location("flanneld_py.backends.gateway", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, spec.name, module)
    monkeypatch.setattr(registry, "BACKENDS", ("gateway",))
    return text


def test_example_is_a_backend(gateway):
    assert registry.backend_keys("gateway") == ("Gateway",)
    backend = make_backend("gateway", Gateway="172.30.0.1")
    assert encode_attrs(backend.publish(None, None, None)) == (
        '{"PublicIP":"172.30.0.12","PublicIPv6":null,"BackendType":"gateway"}'
    )
    subnet = parse_prefix("10.5.2.0/24")
    [peer] = backend.read_peers(Lease(subnet, None, LeaseAttrs(ip("172.30.0.13"), None, "gateway")))
    assert backend.desired(peer, Ground({}, (), has_nexthops=True)) == (
        Route(subnet, 0, 0, ip("172.30.0.1"), 2, onlink=False),
    )
    with pytest.raises(ConfigError, match="Gateway: '' does not appear"):
        make_backend("gateway")


def test_example_is_short(gateway):
    assert len([line for line in gateway.splitlines() if line]) <= 40
