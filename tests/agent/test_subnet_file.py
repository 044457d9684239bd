import asyncio
import os
import stat

import pytest

from flanneld_py.agent.subnet_file import SubnetFile, read_former_subnets, write_subnet_file
from flanneld_py.core.prefix import parse_prefix
from flanneld_py.core.subnet_env import SubnetEnv
from tests.waiting import until

ENV = SubnetEnv((parse_prefix("10.5.0.0/16"),), (parse_prefix("10.5.1.0/24"),), 1450, True)
TEXT = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "flannel" / "subnet.env"


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000], indirect=True)
def test_written_with_its_folder_and_modes(path, umask):
    write_subnet_file(path, ENV)
    assert path.read_text() == TEXT
    # Every reader may read it; of the folder, as of all folders, the operator's umask takes what it takes.
    assert mode(path) == 0o644
    assert mode(path.parent) == 0o755 & ~umask


def test_replaced_at_once_so_that_readers_see_one_or_the_other(path):
    write_subnet_file(path, ENV)
    with path.open() as reader:
        write_subnet_file(path, ENV._replace(mtu=1400))
        assert reader.read() == TEXT
    assert "FLANNEL_MTU=1400" in path.read_text()
    assert [entry.name for entry in path.parent.iterdir()] == ["subnet.env"]


def test_link_in_its_place_is_replaced_and_not_followed(path, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path.parent.mkdir(parents=True)
    path.symlink_to(victim)
    path.with_name(".subnet.env.new").symlink_to(victim)
    write_subnet_file(path, ENV)
    assert victim.read_text() == "precious"
    assert not path.is_symlink()
    assert path.read_text() == TEXT


def test_leftover_of_a_killed_daemon_does_not_matter(path):
    path.parent.mkdir(parents=True)
    path.with_name(".subnet.env.new").write_text("half")
    write_subnet_file(path, ENV)
    assert [entry.name for entry in path.parent.iterdir()] == ["subnet.env"]


def test_failure_leaves_the_former_file(path, monkeypatch):
    write_subnet_file(path, ENV)

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_subnet_file(path, ENV._replace(mtu=1400))
    assert path.read_text() == TEXT


def test_former_subnets(path):
    assert read_former_subnets(path) == ()
    write_subnet_file(path, ENV)
    assert read_former_subnets(path) == (parse_prefix("10.5.1.0/24"),)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"FLANNEL_SUBNET=nonsense\n", b"FLANNEL_MTU=1450\n"])
def test_former_file_that_cannot_be_read_is_told_and_ignored(path, caplog, content):
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert read_former_subnets(path) == ()
    assert "former subnet file ignored" in caplog.text


def test_folder_in_its_place_is_told_and_ignored(path, caplog):
    path.mkdir(parents=True)
    assert read_former_subnets(path) == ()
    assert "former subnet file ignored" in caplog.text


@pytest.fixture
async def kept(path):
    """The file, told and looked after all the time."""
    file = SubnetFile(path, check_seconds=0.001)
    file.tell(ENV)
    keeping = asyncio.create_task(file.keep())
    yield file
    keeping.cancel()


def holds(path, text=TEXT):
    try:
        return path.read_text() == text
    except OSError:
        return False


@pytest.mark.parametrize("harm", ["removed", "changed", "a dangling link", "its folder removed"])
async def test_file_is_written_again(kept, path, tmp_path, caplog, harm):
    path.unlink()
    if harm == "changed":
        path.write_text("FLANNEL_MTU=9000\n")
    elif harm == "a dangling link":
        path.symlink_to(tmp_path / "nowhere")
    elif harm == "its folder removed":
        path.parent.rmdir()
    await until(lambda: holds(path))
    assert "subnet file written again" in caplog.text


async def test_what_is_told_anew_is_what_is_kept(kept, path):
    kept.tell(ENV._replace(mtu=1400))
    path.unlink()
    await until(lambda: holds(path, TEXT.replace("1450", "1400")))


async def test_file_that_cannot_be_written_is_told_once_and_waited_for(path, caplog):
    path.mkdir(parents=True)
    file = SubnetFile(path, check_seconds=0.001)
    file.tell(ENV)
    waiting = asyncio.create_task(file.wait())
    await until(lambda: "subnet file cannot be written" in caplog.text)
    for _ in range(20):
        await asyncio.sleep(0.002)
    assert not waiting.done()
    path.rmdir()
    await waiting
    assert holds(path)
    assert caplog.text.count("subnet file cannot be written") == 1


async def test_nothing_is_written_before_it_is_told(path):
    file = SubnetFile(path, check_seconds=0.001)
    await file.wait()
    assert not file.is_told
    assert not path.exists()
