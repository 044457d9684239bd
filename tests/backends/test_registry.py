import subprocess
import sys
from dataclasses import replace

import pytest

from flanneld_py.backends.registry import BACKENDS, backend_keys, parse_backend
from flanneld_py.core.errors import ConfigError
from flanneld_py.core.network_config import parse_network_config
from tests.backends.nodes import make_backend


def test_unknown_backend_is_named_with_those_there_are():
    config = parse_network_config('{"Network":"10.5.0.0/16","Backend":{"Type":"Carrier-Pigeon"}}')
    with pytest.raises(ConfigError, match=r"Backend\.Type: 'carrier-pigeon' is not known here; expected one of: vxlan"):
        parse_backend(config)


def test_missing_backend_means_udp():
    assert parse_backend(parse_network_config('{"Network":"10.5.0.0/16"}')).func.__name__ == "UdpBackend"


def test_only_the_chosen_backend_is_imported():
    script = (
        "import sys; from flanneld_py.agent import daemon; from flanneld_py.backends.registry import parse_backend;"
        "from flanneld_py.core.network_config import parse_network_config as parse;"
        'parse_backend(parse(\'{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}\'));'
        "print(*(name for name in sys.modules if name.startswith('flanneld_py.backends.')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {
        f"flanneld_py.backends.{name}" for name in ("backend", "registry", "direct", "host_gw")
    }


@pytest.mark.parametrize("kind", BACKENDS)
def test_every_backend_can_be_chosen(kind):
    backend = make_backend(kind)
    assert backend.mtu > 0
    assert backend.claim_name


class Fields(dict):
    """The keys of Backend, which note what is asked of them."""

    def __init__(self, values):
        super().__init__(values)
        self.asked = set()

    def get(self, key, default=None):
        self.asked.add(key)
        return super().get(key, default)


@pytest.mark.parametrize("kind", BACKENDS)
def test_keys_that_a_backend_says_it_has_are_those_that_it_reads(kind):
    config = parse_network_config(f'{{"Network":"10.5.0.0/16","Backend":{{"Type":"{kind}"}}}}')
    fields = Fields(config.backend)
    parse_backend(replace(config, backend=fields))
    assert fields.asked == {key.lower() for key in backend_keys(kind)} - {"macprefix"}


def test_ipsec_is_told_of_wireguard():
    with pytest.raises(ConfigError, match="'ipsec' is not built: wireguard encrypts as well"):
        make_backend("ipsec")
