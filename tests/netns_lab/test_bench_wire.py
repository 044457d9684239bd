"""The hand-written frames and messages, against grpc's rules and the messages that protoc generates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld_py.store import etcd_pb2
from netns_lab.bench import etcd_messages as api
from netns_lab.bench import grpc_wire as wire
from netns_lab.bench.etcd_cost import parse_metric
from netns_lab.errors import LabError


def parse(kind, data):
    message = kind()
    message.ParseFromString(data)
    return message


def test_requests_are_what_etcd_reads():
    put = parse(etcd_pb2.PutRequest, api.encode_put("key", "välue", 1 << 60))
    assert (put.key, put.value, put.lease) == (b"key", "välue".encode(), 1 << 60)
    assert parse(etcd_pb2.PutRequest, api.encode_put("key", "")).lease == 0
    txn = parse(etcd_pb2.TxnRequest, api.encode_puts([api.encode_put("a", "1"), api.encode_put("b", "2")]))
    assert [(op.request_put.key, op.request_put.value) for op in txn.success] == [(b"a", b"1"), (b"b", b"2")]
    assert not txn.compare
    assert not txn.failure
    txn = parse(etcd_pb2.TxnRequest, api.encode_deletes([api.encode_key("a")]))
    assert [op.request_delete_range.key for op in txn.success] == [b"a"]
    prefix = parse(etcd_pb2.RangeRequest, api.encode_prefix("/subnets/"))
    assert (prefix.key, prefix.range_end) == (b"/subnets/", b"/subnets0")
    watch = parse(etcd_pb2.WatchRequest, api.encode_watch("/subnets/"))
    assert (watch.create_request.key, watch.create_request.range_end) == (b"/subnets/", b"/subnets0")
    assert parse(etcd_pb2.LeaseGrantRequest, api.encode_grant(86_400)).TTL == 86_400


def test_answers_are_read():
    grant = etcd_pb2.LeaseGrantResponse(ID=7587862094320, TTL=60)
    assert api.decode_number(grant.SerializeToString(), api.GRANT_ID) == 7587862094320
    watch = etcd_pb2.WatchResponse(events=[etcd_pb2.Event(), etcd_pb2.Event()])
    assert api.count_field(watch.SerializeToString(), api.RESPONSE_EVENTS) == 2
    assert api.decode_number(b"", api.GRANT_ID) == 0


@given(st.integers(0, (1 << 64) - 1), st.binary())
def test_fields_come_back(number, value):
    message = api.encode_number(3, number) + api.encode_bytes(20, value)
    assert list(api.decode_fields(message)) == [(3, number), (20, value)]


@given(st.binary(max_size=100_000), st.integers(1, 5000))
def test_a_message_comes_back_however_it_is_cut(message, size):
    data = wire.encode_call(5, "/service/Method", message, last=True)
    frames, messages = wire.FrameReader(), wire.MessageReader()
    read, found = [], []
    for start in range(0, len(data), size):
        for frame in frames.feed(data[start : start + size]):
            read.append(frame)
            if frame.kind == wire.Kind.DATA:
                found += messages.feed(frame.payload)
    assert found == [message]
    assert [frame.kind for frame in read[:2]] == [wire.Kind.HEADERS, wire.Kind.DATA]
    assert [frame.ends_stream for frame in read] == [False] * (len(read) - 1) + [True]
    assert {frame.stream for frame in read} == {5}
    assert all(len(frame.payload) <= wire.LARGEST_FRAME for frame in read)


def test_headers_are_indexed_or_literal():
    assert wire.encode_headers("/a/B") == (
        b"\x83\x86\x04\x04/a/B\x01\x04etcd\x00\x0ccontent-type\x10application/grpc\x00\x02te\x08trailers"
    )


def test_the_connection_is_answered():
    settings = wire.Frame(wire.Kind.SETTINGS, 0, 0, b"")
    assert wire.answer_to(settings) == bytes.fromhex("000000 04 01 00000000")
    ping = wire.Frame(wire.Kind.PING, 0, 0, b"12345678")
    assert wire.answer_to(ping) == bytes.fromhex("000008 06 01 00000000") + b"12345678"
    for quiet in (wire.Frame(wire.Kind.PING, wire.ACK, 0, b"12345678"), wire.Frame(wire.Kind.DATA, 0, 1, b"x")):
        assert wire.answer_to(quiet) == b""


def test_a_reset_ends_a_stream():
    assert wire.Frame(wire.Kind.RST_STREAM, 0, 3, b"").ends_stream
    assert not wire.Frame(wire.Kind.PING, 1, 0, b"").ends_stream


def test_metrics():
    text = '# HELP a b\na_total 3\na 1.5e+01\nb{c="d"} 7\n'
    assert parse_metric(text, "a") == 15
    with pytest.raises(LabError, match="b"):
        parse_metric(text, "b")
