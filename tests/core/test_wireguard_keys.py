import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flanneld_py.core.wireguard import (
    clamp_private_key,
    format_wireguard_key,
    parse_wireguard_key,
    public_key_of,
)

KEYS = st.binary(min_size=32, max_size=32)


@settings(deadline=None)
@given(KEYS)
def test_public_key_is_what_others_make_of_it(key):
    x25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.x25519")
    assert public_key_of(key) == x25519.X25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()


@settings(deadline=None)
@given(KEYS)
def test_clamping_changes_no_key_and_settles(key):
    clamped = clamp_private_key(key)
    assert public_key_of(clamped) == public_key_of(key)
    assert clamp_private_key(clamped) == clamped


def test_keys_are_those_of_the_tools():
    if shutil.which("wg") is None:
        pytest.skip("no wg: apt-get install wireguard-tools")
    private = subprocess.run(["wg", "genkey"], capture_output=True, check=True, text=True).stdout
    public = subprocess.run(["wg", "pubkey"], input=private, capture_output=True, check=True, text=True).stdout
    assert format_wireguard_key(public_key_of(parse_wireguard_key(private))) == public.strip()


@settings(deadline=None)
@given(KEYS)
def test_key_survives_its_text(key):
    assert parse_wireguard_key(format_wireguard_key(key) + "\n") == key


@pytest.mark.parametrize("text", ["", "secret", "A" * 44, "AAAA", format_wireguard_key(bytes(32))[:-2], "é" * 44])
def test_what_is_no_key_is_refused_and_not_shown(text):
    with pytest.raises(ValueError, match=r"^it is no key of 32 bytes in base64$"):
        parse_wireguard_key(text)
