"""Frames of HTTP/2, whole and in pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld_py.store import http2
from flanneld_py.store.http2 import Frame, FrameError, FrameKind, FrameReader, Setting

FRAMES = st.lists(
    st.builds(
        Frame,
        st.sampled_from(FrameKind),
        st.integers(0, 255),
        st.integers(0, http2.LARGEST_WINDOW),
        st.binary(max_size=300),
    ),
    max_size=6,
)


@given(FRAMES, st.integers(1, 40))
def test_frames_come_out_as_they_went_in_however_they_are_cut(frames, size):
    data = b"".join(http2.encode_frame(*frame) for frame in frames)
    reader = FrameReader()
    found = [frame for start in range(0, len(data), size) for frame in reader.feed(data[start : start + size])]
    assert found == frames


def test_layout_of_a_frame():
    assert (
        http2.encode_frame(FrameKind.PING, http2.ACK, 0, b"12345678").hex() == "000008060100000000" + b"12345678".hex()
    )
    assert http2.encode_window_update(5, 7).hex() == "00000408000000000500000007"
    assert http2.encode_settings({Setting.ENABLE_PUSH: 0}).hex() == "000006040000000000000200000000"
    assert http2.encode_reset(3, http2.CANCEL).hex() == "00000403000000000300000008"


def test_a_frame_larger_than_granted_is_refused():
    with pytest.raises(FrameError):
        list(FrameReader().feed(bytes.fromhex("004001000000000001")))


def test_padding_and_priority_are_taken_off():
    assert http2.strip_padding(Frame(FrameKind.DATA, http2.PADDED, 1, b"\x02abc\0\0")) == b"abc"
    flags = http2.PADDED | http2.PRIORITY
    assert http2.strip_padding(Frame(FrameKind.HEADERS, flags, 1, b"\x01" + bytes(5) + b"abc\0")) == b"abc"
    assert http2.strip_padding(Frame(FrameKind.DATA, http2.PRIORITY, 1, b"abc")) == b"abc"
    for payload in (b"", b"\x01", b"\x09abc"):
        with pytest.raises(FrameError):
            http2.strip_padding(Frame(FrameKind.DATA, http2.PADDED, 1, payload))


def test_settings_are_read():
    (frame,) = FrameReader().feed(
        http2.encode_settings({Setting.INITIAL_WINDOW_SIZE: 70_000, Setting.MAX_FRAME_SIZE: 9})
    )
    assert http2.decode_settings(frame.payload) == {Setting.INITIAL_WINDOW_SIZE: 70_000, Setting.MAX_FRAME_SIZE: 9}
    with pytest.raises(FrameError):
        http2.decode_settings(b"12345")


def test_why_a_server_goes_away_is_read():
    assert http2.decode_going_away(b"\0\0\0\x07\0\0\0\x0btoo_many_pings") == (11, "too_many_pings")
    with pytest.raises(FrameError):
        http2.decode_going_away(b"\0\0\0\x07")
