import fcntl
import os
import stat
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld_py.core.prefix import IPV4, parse_address, parse_prefix
from flanneld_py.pods import errors, host_local
from flanneld_py.pods.bridge_conf import StoreConf, first_address, last_address
from flanneld_py.pods.errors import CniError
from flanneld_py.pods.host_local import AddressStore, pick_address

SUBNET = parse_prefix("10.5.2.0/24")
SUBNET6 = parse_prefix("fd42:0:0:1::/64")
SMALL = parse_prefix("10.5.2.0/29")


def number(text):
    return parse_address(text)[1]


@pytest.fixture
def store(tmp_path):
    return AddressStore(StoreConf(str(tmp_path), "cbr0"))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cbr0"


def reserve(store, container, subnets=(SUBNET,), requested=(), ifname="eth0"):
    with store:
        return [entry.address for entry in store.reserve(subnets, requested, container, ifname)]


def release(store, container, ifname="eth0"):
    with store:
        store.release(container, ifname)


@given(
    st.sets(st.integers(SMALL.address, SMALL.last)),
    st.none() | st.integers(SMALL.address - 2, SMALL.last + 2),
)
def test_the_picked_address_is_the_next_free_one(taken, last):
    picked = pick_address(SMALL, last, taken)
    usable = range(first_address(SMALL), last_address(SMALL) + 1)
    if picked is None:
        assert set(usable) <= taken
        return
    assert picked in usable
    assert picked not in taken
    start = last + 1 if last is not None and last + 1 in usable and last in usable else usable[0]
    order = [*range(start, usable[-1] + 1), *range(usable[0], start)]
    assert set(order[: order.index(picked)]) <= taken


def test_the_files_are_host_locals_byte_for_byte(store, folder):
    with store:
        pod = store.reserve((SUBNET, SUBNET6), (), "c1", "eth0")
    assert [(entry.address, entry.gateway) for entry in pod] == [
        (number("10.5.2.2"), number("10.5.2.1")),
        (number("fd42:0:0:1::2"), number("fd42:0:0:1::1")),
    ]
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        "lock": b"",
        "10.5.2.2": b"c1\r\neth0",
        "fd42:0:0:1::2": b"c1\r\neth0",
        "last_reserved_ip.0": b"10.5.2.2",
        "last_reserved_ip.1": b"fd42:0:0:1::2",
    }
    assert stat.S_IMODE((folder / "10.5.2.2").stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "last_reserved_ip.0").stat().st_mode) == 0o600


def test_an_address_just_given_back_is_not_given_next(store):
    assert reserve(store, "c1") == [number("10.5.2.2")]
    release(store, "c1")
    assert reserve(store, "c2") == [number("10.5.2.3")]


def test_each_usable_address_is_given_once_and_then_none(store):
    given_out = [reserve(store, f"c{index}", (SMALL,))[0] for index in range(5)]
    assert given_out == [number(f"10.5.2.{host}") for host in range(2, 7)]
    with pytest.raises(CniError, match=r"no address is left in 10\.5\.2\.0/29") as caught:
        reserve(store, "one too many", (SMALL,))
    assert caught.value.code == errors.PLUGIN_NOT_AVAILABLE
    release(store, "c3")
    assert reserve(store, "c9", (SMALL,)) == [number("10.5.2.5")]


def test_if_one_subnet_is_exhausted_nothing_is_reserved_in_the_other(store, folder):
    for index in range(5):
        reserve(store, f"c{index}", (SMALL,))
    with pytest.raises(CniError):
        reserve(store, "c9", (SUBNET6, SMALL))
    assert not (folder / "fd42:0:0:1::2").exists()


def test_a_requested_address_is_given_or_refused(store):
    wanted = ((IPV4, number("10.5.2.77")),)
    assert reserve(store, "c1", (SUBNET, SUBNET6), wanted) == [number("10.5.2.77"), number("fd42:0:0:1::2")]
    with pytest.raises(CniError, match=r"10\.5\.2\.77 is held"):
        reserve(store, "c2", requested=wanted)


def test_find_and_release_go_by_container_and_device(store):
    reserve(store, "c1")
    reserve(store, "c1", ifname="eth1")
    reserve(store, "c10")
    with store:
        assert store.find("c1", "eth0") == ((IPV4, number("10.5.2.2")),)
        store.release("c1", "eth0")
        store.release("c1", "eth0")
        assert store.find("c1", "eth0") == ()
        assert store.find("c1", "eth1") == ((IPV4, number("10.5.2.3")),)
        assert store.find("c10", "eth0") == ((IPV4, number("10.5.2.4")),)


def test_release_reads_no_file_again_that_was_another_containers(store, folder, monkeypatch):
    for index in range(4):
        reserve(store, f"c{index}")
    release(store, "c0")
    read = []

    def read_file(path):
        read.append(path.rpartition("/")[2])
        return (folder / read[-1]).read_bytes()

    monkeypatch.setattr(host_local, "read_file", read_file)
    reserve(store, "c9")
    read.clear()
    release(store, "c2")
    assert sorted(read) == ["10.5.2.4", "10.5.2.6"]
    assert not (folder / "10.5.2.4").exists()


def test_release_finds_what_others_have_written_since(store, folder):
    for index in range(4):
        reserve(store, f"c{index}")
    release(store, "c0")
    (folder / "10.5.2.3").write_text("c8\r\neth0")  # in place, so that its inode number is the former
    (folder / "10.5.2.4").unlink()
    (folder / "10.5.2.9").write_text("c9\r\neth0")
    release(store, "c8")
    release(store, "c9")
    release(store, "c2")
    assert sorted(file.name for file in folder.glob("10.*")) == ["10.5.2.5"]


def test_old_files_hold_the_container_alone(store, folder):
    folder.mkdir()
    (folder / "10.5.2.2").write_text("c1\n")
    with store:
        assert store.find("c1", "eth0") == ((IPV4, number("10.5.2.2")),)
        assert store.find("c2", "eth0") == ()
    assert reserve(store, "c2") == [number("10.5.2.3")]
    release(store, "c1")
    assert not (folder / "10.5.2.2").exists()


def test_what_a_killed_writer_left_is_in_nobodys_way(store, folder):
    reserve(store, "c1")
    (folder / ".10.5.2.3").write_text("c2\r\neth0")
    (folder / "last_reserved_ip.0").write_text("garbage")
    (folder / "notes").write_text("c1\r\neth0")
    assert reserve(store, "c2") == [number("10.5.2.3")]
    assert not (folder / ".10.5.2.3").exists()
    release(store, "c1")
    assert (folder / "notes").exists()


def test_the_last_address_of_another_family_does_not_count(store, folder):
    folder.mkdir()
    (folder / "last_reserved_ip.0").write_text("fd42:0:0:1::9")
    assert reserve(store, "c1") == [number("10.5.2.2")]


def test_the_store_is_locked_as_host_local_locks_it(store, folder):
    with store:
        lock = os.open(folder / "lock", os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(lock)


def test_many_at_once_get_an_address_each(tmp_path):
    conf = StoreConf(str(tmp_path), "cbr0")
    found = []
    threads = [
        threading.Thread(target=lambda index=index: found.extend(reserve(AddressStore(conf), f"c{index}")))
        for index in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 20
