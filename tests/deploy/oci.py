"""Containers of the built image, run by runc the way that a kubelet has a runtime run what the manifest says."""

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from flanneld_py import __version__

IMAGE = Path(__file__).parents[2] / "dist" / f"flanneld-py_{__version__}_image.tar"
_NAMESPACES = ("pid", "mount", "ipc", "uts")  # not the network's: hostNetwork
_MASKED = ("/proc/kcore", "/proc/keys", "/proc/sched_debug", "/sys/firmware")
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_MOUNTS = (
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "ro"]},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755"]},
)


class Image:
    """The image, unpacked: `config` is what it says of itself, `root` its files."""

    def __init__(self, folder):
        if not IMAGE.exists():
            pytest.skip(f"no {IMAGE}: make image builds it")
        self.root = folder / "image"
        with tarfile.open(IMAGE) as archive:
            (manifest,) = json.load(archive.extractfile("manifest.json"))
            self.names = manifest["RepoTags"]
            self.config = json.load(archive.extractfile(manifest["Config"]))["config"]
            for layer in manifest["Layers"]:
                with tarfile.open(fileobj=io.BytesIO(archive.extractfile(layer).read())) as files:
                    files.extractall(self.root, filter="tar")


class Containers:
    """What runs the containers of a manifest; `volumes` holds a folder for each volume, as the node would."""

    def __init__(self, image, pod, folder):
        if shutil.which("runc") is None:
            pytest.skip("no runc: apt-get install runc")
        self._image, self._folder = image, folder
        self._bundles = 0
        self.volumes = folder / "volumes"
        for volume in pod["volumes"]:
            path = self.volumes / volume["name"]
            is_file = volume.get("hostPath", {}).get("type") == "FileOrCreate"
            (path.parent if is_file else path).mkdir(parents=True, exist_ok=True)
            if is_file:
                path.touch()

    def command(self, container, words=None):
        """Return the command that runs a container, with `words` in place of its arguments."""
        context = container["securityContext"]
        capabilities = [f"CAP_{name}" for name in context["capabilities"].get("add", ())]
        arguments = [*container["command"], *(container.get("args", ()) if words is None else words)]
        spec = {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": arguments,
                "env": self._image.config["Env"],
                "cwd": "/",
                "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
                "noNewPrivileges": not context["allowPrivilegeEscalation"],
            },
            "root": {"path": str(self._image.root), "readonly": context["readOnlyRootFilesystem"]},
            "mounts": [*_MOUNTS, *map(self._mount, container["volumeMounts"])],
            "linux": {
                "namespaces": [{"type": kind} for kind in _NAMESPACES],
                "maskedPaths": _MASKED,
                "readonlyPaths": _READ_ONLY,
            },
        }
        self._bundles += 1
        bundle = self._folder / f"bundle{self._bundles}"
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(spec))
        return ["runc", "--root", str(self._folder / "runc"), "run", "--bundle", str(bundle), bundle.name]

    def _mount(self, mount):
        options = ["rbind", "ro" if mount.get("readOnly") else "rw"]
        source = str(self.volumes / mount["name"])
        return {"destination": mount["mountPath"], "type": "bind", "source": source, "options": options}

    def run(self, container, words=None):
        """Run a container to its end, and return what it printed."""
        done = subprocess.run(self.command(container, words), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
