"""The scratch file `<data dir>/<container id>`: the delegate's complete configuration, kept from ADD to DEL.

Go flannel's plugin cleans up nothing without it, so a node may change from one plugin to the other only because both
write it.
"""

from __future__ import annotations

import os

from flanneld_py.core.named_tuple import TYPE_CHECKING
from flanneld_py.pods.errors import CniError
from flanneld_py.pods.files import read_file, replace_file, temporary_of
from flanneld_py.pods.json_text import encode_json, parse_object

if TYPE_CHECKING:
    from collections.abc import Callable

    from flanneld_py.pods.fields import Fields

_FOLDER_MODE = 0o700
_FILE_MODE = 0o600


def write_scratch(data_dir: str, container_id: str, delegate: Fields) -> Callable[[], None]:
    """Keep the delegate's configuration, and return what takes that back. Raises OSError.

    A container with several devices has one file for all; the latest ADD's stands there.
    """
    path = f"{data_dir}/{container_id}"
    former = read_file(path)
    content = encode_json(delegate).encode()
    try:
        replace_file(path, content, _FILE_MODE)
    except FileNotFoundError:
        os.makedirs(data_dir, _FOLDER_MODE, exist_ok=True)
        replace_file(path, content, _FILE_MODE)
    if former is None:
        return lambda: remove_scratch(data_dir, container_id)
    return lambda: replace_file(path, former, _FILE_MODE)


def has_scratch(data_dir: str, container_id: str) -> bool:
    """Say whether there is a file for the container."""
    return os.access(f"{data_dir}/{container_id}", os.F_OK)


def read_scratch(data_dir: str, container_id: str) -> Fields | None:
    """Return the configuration that was kept, None if there is none that can be read. Raises OSError."""
    content = read_file(f"{data_dir}/{container_id}")
    try:
        return None if content is None else parse_object(content, "the scratch file")
    except CniError:
        return None


def remove_scratch(data_dir: str, container_id: str) -> None:
    """Drop the file, and what a write that was killed left; what is gone already is no error. Raises OSError."""
    path = f"{data_dir}/{container_id}"
    for file in (path, temporary_of(path)):
        try:
            os.unlink(file)
        except FileNotFoundError:
            continue
