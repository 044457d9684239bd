"""What container runtimes need in a test: an image, made here of a static busybox, and what runs a container."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
IMAGE = "localhost/pod:1"
FOREVER = ["/busybox", "sleep", "1000000"]

# A user namespace, in which the tests run, has no group tty, which runtimes ask for with every container, nor a control
# group to make one for it in, without which runc does where none is named.
_LOW_RUNTIME = """\
#!/bin/sh
for word; do [ -f "$word/config.json" ] && sed -i 's/,"gid=5"//; s/"cgroupsPath":"[^"]*",//' "$word/config.json"; done
exec {program} "$@"
"""


def write_low_runtime(path, program):
    """Write a program that runs containers as `runc` or `crun` does."""
    path.write_text(_LOW_RUNTIME.format(program=program))
    path.chmod(0o755)


def add_file(archive, name, content, mode=0o644):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def write_image(path):
    """Write an image in the format of `docker save`: one layer, in which there is busybox alone."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        add_file(archive, "busybox", BUSYBOX.read_bytes(), 0o755)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": FOREVER},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        add_file(archive, "config.json", json.dumps(config).encode())
        add_file(archive, "layer.tar", layer.getvalue())
        add_file(archive, "manifest.json", json.dumps(manifest).encode())
