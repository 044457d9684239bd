"""HPACK by the examples of RFC 7541, appendix C, and what breaks its rules."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld_py.store.hpack import HeaderError, HeaderReader, encode_headers

REQUESTS = [  # C.4: with Huffman codes; each refers to what the one before it has told
    (
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")],
    ),
    (
        "8286 84be 5886 a8eb 1064 9cbf",
        [
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "www.example.com"),
            ("cache-control", "no-cache"),
        ],
    ),
    (
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            (":authority", "www.example.com"),
            ("custom-key", "custom-value"),
        ],
    ),
]
SHRUNK = "3f e1 01"  # to 256 bytes, as in C.5 and C.6
RESPONSES = [  # C.6: Huffman codes, and a table so small that entries leave it
    (
        "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
        [
            (":status", "302"),
            ("cache-control", "private"),
            ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("location", "https://www.example.com"),
        ],
    ),
    (
        "4883 640e ffc1 c0bf",
        [
            (":status", "307"),
            ("cache-control", "private"),
            ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("location", "https://www.example.com"),
        ],
    ),
]
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300)


def test_requests_of_the_rfc():
    reader = HeaderReader()
    for block, headers in REQUESTS:
        assert reader.read(bytes.fromhex(block)) == headers


def test_answers_of_the_rfc_with_a_small_table():
    reader = HeaderReader()
    assert reader.read(bytes.fromhex(SHRUNK)) == []
    for block, headers in RESPONSES:
        assert reader.read(bytes.fromhex(block)) == headers


@given(st.lists(st.tuples(st.sampled_from([":path", ":method", "te", "token", "x-é"]), TEXTS)))
def test_what_is_written_can_be_read(headers):
    wanted = [(name.encode().decode("latin-1"), value) for name, value in headers]
    assert HeaderReader().read(encode_headers(headers)) == wanted


def test_what_is_written_is_to_be_remembered_by_nobody():
    reader = HeaderReader()
    reader.read(encode_headers([("token", "secret"), (":path", "/a")]))
    with pytest.raises(HeaderError):
        reader.read(b"\xbe")


@pytest.mark.parametrize(
    "block",
    [
        "80",  # refers to nothing
        "be",  # to what was never told
        "00",  # ends before the name
        "0003 6162",  # within it
        "0001 61",  # before the value
        "0081 00 01 61",  # a Huffman text ends within a character
        "0082 ffff 01 61",  # is padded with more than seven bits
        "3f e2 1f",  # a table beyond what was granted
        "ff ffff ffff ffff ffff 01",  # a number without end
    ],
)
def test_what_breaks_the_rules_is_refused(block):
    with pytest.raises(HeaderError):
        HeaderReader().read(bytes.fromhex(block))


@given(st.binary(max_size=60))
def test_nonsense_is_read_or_refused(block):
    with suppress(HeaderError):
        HeaderReader().read(block)
