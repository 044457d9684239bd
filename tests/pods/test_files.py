import os
import stat

import pytest

from flanneld_py.pods.files import overwrite_file, read_all, read_file, replace_file, write_new_file


def test_a_new_file_is_whole_and_does_not_replace_another(tmp_path):
    path = tmp_path / "a"
    write_new_file(str(path), b"one", 0o600)
    with pytest.raises(FileExistsError):
        write_new_file(str(path), b"two", 0o600)
    assert path.read_bytes() == b"one"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_a_replaced_file_has_the_new_content_only(tmp_path):
    path = tmp_path / "a"
    for content in (b"long content", b"short"):
        replace_file(str(path), content, 0o640)
    assert path.read_bytes() == read_file(str(path)) == b"short"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_a_file_that_is_written_over_stays_the_same_file(tmp_path):
    path = tmp_path / "a"
    for content in (b"long content", b"short", b"longer"):
        overwrite_file(str(path), content, 0o600)
        assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    former = path.stat().st_ino
    overwrite_file(str(path), b"x", 0o600)
    assert path.stat().st_ino == former


def test_what_is_absent_reads_as_none_and_what_is_too_long_is_refused(tmp_path):
    assert read_file(str(tmp_path / "absent")) is None
    path = tmp_path / "long"
    path.write_bytes(b"x" * 200_000)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert len(read_all(descriptor, 200_000)) == 200_000
        os.lseek(descriptor, 0, os.SEEK_SET)
        with pytest.raises(OSError, match="more than 199999 bytes"):
            read_all(descriptor, 199_999)
    finally:
        os.close(descriptor)
