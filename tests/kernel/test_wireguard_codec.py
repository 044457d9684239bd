"""What is written to WireGuard and read from it, in both languages; dissected by pyroute2's own description."""

import struct
from io import StringIO

from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.generic.wireguard import wgmsg

from flanneld_py.core.prefix import IPV4, IPV6, Prefix, parse_prefix
from flanneld_py.core.wireguard import NO_KEY, DeviceChange, Endpoint, PeerChange, WireguardPeer, WireguardState
from flanneld_py.kernel import netlink, wireguard_netlink, wireguard_uapi
from tests.host import number

KEY, PEER, SECRET = bytes(range(32)), bytes(range(32, 64)), bytes(range(64, 96))
SUBNET, SUBNET6 = parse_prefix("10.5.2.0/24"), parse_prefix("fd42:0:0:2::/64")
FOUR, SIX = Endpoint(IPV4, number("172.30.0.13"), 51820), Endpoint(IPV6, number("fd30::13"), 51821)
CHANGE = DeviceChange(
    KEY,
    51820,
    (
        PeerChange(PEER, preshared_key=SECRET, endpoint=FOUR, keepalive=25, allowed=(SUBNET, SUBNET6)),
        PeerChange(SECRET, endpoint=SIX, allowed=(SUBNET6,), replace_allowed=True),
        PeerChange(KEY, remove=True),
    ),
)


def test_change_by_socket():
    assert wireguard_uapi.encode_change(CHANGE) == (
        f"set=1\nprivate_key={KEY.hex()}\nlisten_port=51820\n"
        f"public_key={PEER.hex()}\npreshared_key={SECRET.hex()}\nendpoint=172.30.0.13:51820\n"
        "persistent_keepalive_interval=25\nallowed_ip=10.5.2.0/24\nallowed_ip=fd42:0:0:2::/64\n"
        f"public_key={SECRET.hex()}\nendpoint=[fd30::13]:51821\nreplace_allowed_ips=true\nallowed_ip=fd42:0:0:2::/64\n"
        f"public_key={KEY.hex()}\nremove=true\n\n"
    )


def test_state_by_socket():
    text = (
        f"private_key={KEY.hex()}\nlisten_port=51820\nfwmark=0\n"
        f"public_key={PEER.hex()}\npreshared_key={SECRET.hex()}\nprotocol_version=1\nendpoint=[fe80::1%eth0]:7\n"
        "last_handshake_time_sec=0\ntx_bytes=7000000000\nrx_bytes=92\npersistent_keepalive_interval=25\n"
        "allowed_ip=10.5.2.0/24\nallowed_ip=fd42:0:0:2::/64\n"
        f"public_key={SECRET.hex()}\nerrno=0\n\n"
    )
    lines = list(wireguard_uapi._until_blank(StringIO(text)))
    assert wireguard_uapi.decode_state(lines) == WireguardState(
        KEY,
        51820,
        (
            WireguardPeer(PEER, SECRET, Endpoint(IPV6, number("fe80::1"), 7), 25, (SUBNET, SUBNET6), 92, 7_000_000_000),
            WireguardPeer(SECRET, NO_KEY, None, 0, ()),
        ),
    )
    assert wireguard_uapi.decode_state([("errno", "0")]) == WireguardState(NO_KEY, 0, ())


def test_change_by_netlink_is_as_others_read_it():
    request = wireguard_netlink.encode_change(30, "flannel-wg", CHANGE)
    message = wgmsg(netlink.encode_request(request, 1))
    message.decode()
    assert (message["header"]["type"], message["cmd"]) == (30, wireguard_netlink.WG_CMD_SET_DEVICE)
    assert message.get_attr("WGDEVICE_A_IFNAME") == "flannel-wg"
    assert message.get_attr("WGDEVICE_A_LISTEN_PORT") == 51820
    first, second, third = message.get_attr("WGDEVICE_A_PEERS")
    assert first.get_attr("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL") == 25
    told = first.get_attr("WGPEER_A_ENDPOINT")
    assert (told["family"], told["port"], told["addr"]) == (2, 51820, "172.30.0.13")
    assert [allowed["addr"] for allowed in first.get_attr("WGPEER_A_ALLOWEDIPS")] == [str(SUBNET), str(SUBNET6)]
    assert second.get_attr("WGPEER_A_FLAGS") == wireguard_netlink.WGPEER_F_REPLACE_ALLOWEDIPS
    assert second.get_attr("WGPEER_A_ENDPOINT")["addr"] == "fd30::13"
    assert second.get_attr("WGPEER_A_PRESHARED_KEY") is None
    assert third.get_attr("WGPEER_A_FLAGS") == wireguard_netlink.WGPEER_F_REMOVE_ME


def as_answer(change):
    """The kernel's answer about a device that has been changed so from nothing: the attributes are the same."""
    payload = wireguard_netlink.encode_change(30, "flannel-wg", change).payload
    return netlink.Message(30, 0, 1, 0, memoryview(payload))


def test_state_by_netlink():
    state = wireguard_netlink.decode_state([as_answer(CHANGE._replace(peers=CHANGE.peers[:2]))])
    assert state == WireguardState(
        KEY,
        51820,
        (
            WireguardPeer(PEER, SECRET, FOUR, 25, (SUBNET, SUBNET6)),
            WireguardPeer(SECRET, NO_KEY, SIX, 0, (SUBNET6,)),
        ),
    )


def test_traffic_by_netlink():
    fields = (
        netlink.encode_attribute(wireguard_netlink.WGPEER_A_PUBLIC_KEY, PEER),
        # As the kernel pads numbers of 64 bits.
        netlink.encode_attribute(10, b""),
        netlink.encode_attribute(7, struct.pack("=Q", 92)),
        netlink.encode_attribute(8, struct.pack("=Q", 7_000_000_000)),
    )
    peers = netlink.encode_nested(wireguard_netlink.WGDEVICE_A_PEERS, netlink.encode_nested(0, *fields))
    message = netlink.Message(30, 0, 1, 0, memoryview(bytes(4) + peers))
    [peer] = wireguard_netlink.decode_state([message]).peers
    assert (peer.received, peer.sent) == (92, 7_000_000_000)


def test_peer_that_goes_on_in_the_next_message():
    parts = [
        DeviceChange(KEY, 5, (PeerChange(PEER, endpoint=FOUR, allowed=(SUBNET,)),)),
        DeviceChange(None, None, (PeerChange(PEER, allowed=(SUBNET6,)),)),
    ]
    state = wireguard_netlink.decode_state(map(as_answer, parts))
    assert state == WireguardState(KEY, 5, (WireguardPeer(PEER, NO_KEY, FOUR, 0, (SUBNET, SUBNET6)),))


PREFIXES = st.builds(
    lambda family, bits, length: Prefix(
        family, bits >> (128 - length) << ((32 if family == IPV4 else 128) - length), length
    ),
    st.sampled_from([IPV4, IPV6]),
    st.integers(0, 2**128 - 1),
    st.integers(0, 32),
)
ENDPOINTS = st.builds(Endpoint, st.just(IPV4), st.integers(0, 2**32 - 1), st.integers(0, 65535)) | st.builds(
    Endpoint, st.just(IPV6), st.integers(0, 2**128 - 1), st.integers(0, 65535)
)


@given(st.lists(PREFIXES, unique=True), ENDPOINTS)
def test_any_peer_survives_both_languages(prefixes, endpoint):
    change = DeviceChange(KEY, 1, (PeerChange(PEER, endpoint=endpoint, allowed=tuple(prefixes)),))
    wanted = WireguardState(KEY, 1, (WireguardPeer(PEER, NO_KEY, endpoint, 0, tuple(prefixes)),))
    assert wireguard_netlink.decode_state([as_answer(change)]) == wanted
    lines = list(wireguard_uapi._until_blank(StringIO(wireguard_uapi.encode_change(change).removeprefix("set=1\n"))))
    assert wireguard_uapi.decode_state(lines) == wanted
