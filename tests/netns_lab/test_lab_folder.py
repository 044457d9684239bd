from pathlib import Path

import pytest

from netns_lab.errors import LabError, NoLabError
from netns_lab.folder import LabFolder, create_private, labs_folder


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({}, "/tmp/netns-lab-7"),
        ({"XDG_RUNTIME_DIR": "/run/user/7"}, "/run/user/7/netns-lab"),
        ({"XDG_RUNTIME_DIR": "/run/user/7", "NETNS_LAB_DIR": "/var/labs"}, "/var/labs"),
        ({"XDG_RUNTIME_DIR": "", "NETNS_LAB_DIR": ""}, "/tmp/netns-lab-7"),
    ],
)
def test_where_labs_lie(environment, folder):
    assert labs_folder(environment, 7) == Path(folder)


def test_a_folder_that_others_can_write_to_is_refused(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(LabError, match="nobody else can write to"):
        create_private(tmp_path)


def test_a_symbolic_link_is_refused(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(LabError, match="must be a folder of yours"):
        create_private(tmp_path / "link")


def test_a_lab_is_made_once_and_leaves_nothing(tmp_path):
    folder = LabFolder(tmp_path / "labs" / "one")
    folder.create()
    with pytest.raises(LabError, match="is there already"):
        folder.create()
    (folder.root / "file").touch()
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_another_lab_stays(tmp_path):
    one, other = LabFolder(tmp_path / "labs" / "one"), LabFolder(tmp_path / "labs" / "other")
    one.create()
    other.create()
    one.remove()
    assert other.root.exists()


def test_a_lab_that_is_not_there_is_told(tmp_path):
    with pytest.raises(NoLabError, match="netns-lab up makes one"):
        LabFolder(tmp_path / "one").require()
