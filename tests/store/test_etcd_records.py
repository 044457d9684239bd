"""What is read out of etcd's keys, and how a free subnet is found among many."""

import random
from itertools import islice

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flanneld_py.core.lease import LeaseAttrs
from flanneld_py.core.lease_event import LeasePut, LeaseRejected
from flanneld_py.core.network_config import parse_network_config
from flanneld_py.store import etcd_pb2 as pb
from flanneld_py.store.etcd_records import Census, Layout, read_event

LAYOUT = Layout("/coreos.com/network")
SIXTEEN = parse_network_config('{"Network":"10.5.0.0/20","SubnetMin":"10.5.0.0"}').ipv4


def census_of(*names):
    census = Census(LAYOUT, LeaseAttrs(1, None, "vxlan"))
    census.count(pb.KeyValue(key=LAYOUT.lease_key(name)) for name in names)
    return census


def picked(census, times=200):
    rng = random.Random(5)  # noqa: S311 - a repeatable test
    return {str(census.pick_at_random(SIXTEEN, rng)) for _ in range(times)} - {"None"}


def all_but(*free):
    return [f"10.5.{index}.0-24" for index in range(16) if index not in free]


def test_every_free_subnet_may_be_picked_and_no_other():
    assert picked(census_of(*all_but(3, 7))) == {"10.5.3.0/24", "10.5.7.0/24"}
    assert len(picked(census_of())) == 16


@pytest.mark.parametrize(
    "name",
    [
        "10.5.3.0-24",
        "10.5.3.0-24&fd05:0:0:1::-64",
        "10.5.3.0-25",
        "10.5.3.128-25",
        "10.5.2.0-23",
        "10.5.3.64-26&fd05::-64",
    ],
)
def test_what_overlaps_is_not_picked(name):
    assert picked(census_of(name)) == picked(census_of()) - {"10.5.3.0/24"} - (
        {"10.5.2.0/24"} if name.endswith("-23") else set()
    )


@pytest.mark.parametrize("name", ["10.5.3.7-25", "poison", "10.5.30.0-24", "110.5.3.0-24", "10.5.3.0", ""])
def test_what_takes_nothing_hinders_nothing(name):
    assert len(picked(census_of(name))) == 16


def test_nothing_is_picked_where_all_is_taken():
    assert census_of(*all_but()).pick_at_random(SIXTEEN, random.Random(1)) is None  # noqa: S311 - as above


def test_what_is_added_is_taken_and_what_is_forgotten_is_free():
    census = census_of(*all_but(3))
    census.forget("10.5.4.0-24")
    census.add("10.5.3.0-24")
    assert picked(census) == {"10.5.4.0/24"}
    assert len(census.taken) == 15


def test_only_what_carries_our_address_is_kept():
    census = Census(LAYOUT, LeaseAttrs(0x01020304, None, "vxlan"))
    texts = ('{"PublicIP":"1.2.3.4"}', '{"PublicIP":"1.2.3.45"}', '{"PublicIP":"1.2.3.5"}', "poison 1.2.3.4")
    names = (f"10.5.{index}.0-24" for index in range(16))
    census.count(
        pb.KeyValue(key=LAYOUT.lease_key(name), value=text.encode(), mod_revision=7, lease=9)
        for name, text in zip(islice(names, len(texts)), texts, strict=True)
    )
    ((name, _, attrs, _, revision, etcd_lease),) = census.own
    assert (name, attrs.public_ip, revision, etcd_lease) == ("10.5.0.0-24", 0x01020304, 7, 9)
    assert len(census.taken) == 4


LONG = 1_000_000
"""Bytes: nearly what etcd takes as one value."""
SHAPED = st.from_regex(
    rb'\A\{"PublicIP":"[0-9.]{0,20}","PublicIPv6":null,"BackendType":"[a-z-]{0,8}","BackendData":.{0,40}\}\Z'
)


@settings(deadline=None)
@given(st.binary(max_size=60) | st.from_regex(rb"\A[0-9.&:a-f-]{0,60}\Z"), st.binary(max_size=80) | SHAPED)
@example(b"10.5.2.0-24", b"[" * LONG)
@example(b"10.5.2.0-24", b'{"PublicIP":"' + b"1" * LONG)
@example(b"10.5.2.0-24", b'{"PublicIP":"1.2.3.4","BackendData":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}")
@example(b"10.5.2.0-24", b'{"BackendData":{"VNI":' + b"9" * 5000 + b"}}")
@example(b"1" * LONG, b"{}")
@example(b"10.5.2.0-24&" + b"1:" * 100_000 + b"-64", b"{}")
@example(b"\xff\xfe-24", b"\xff")
def test_whatever_is_written_is_read_or_refused(name, value):
    record = pb.KeyValue(key=LAYOUT.leases.start + name, value=value, mod_revision=7)
    event = read_event(LAYOUT, pb.Event(kv=record))
    assert isinstance(event, LeasePut | LeaseRejected)
    if isinstance(event, LeaseRejected):
        assert len(event.reason) <= 200
    census = Census(LAYOUT, LeaseAttrs(0x01020304, None, "vxlan"))
    census.count([record])
    assert len(census.taken) <= 1
