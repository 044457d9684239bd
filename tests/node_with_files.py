"""A node with files of its own, on which real programs run as they do on a machine: container engines and kubelet.

What is written below /etc, /opt and /var goes to a folder of the node, and /run is empty at first, so that all files
are where a real node has them. Of the machine's control groups it can change none.
"""

import os
import subprocess
from pathlib import Path

from tests.test_daemon import Node

_OWN_FOLDERS = ("etc", "opt", "var")


class NodeWithFiles(Node):
    """A node of a cluster."""

    def __init__(self, cluster, number, namespace, *prepare):
        """Further lines of shell script prepare its files."""
        super().__init__(cluster, number, namespace)
        self.name = f"node{number}"
        self.folder.mkdir()
        self._programs = {}
        self._holder = self._hold_mounts(prepare)

    def _hold_mounts(self, prepare):
        script = ["set -e", "mount -t tmpfs run /run", f"hostname {self.name}"]
        for name in _OWN_FOLDERS:
            disk, work = (self.folder / part / name for part in ("disk", "work"))
            disk.mkdir(parents=True)
            work.mkdir(parents=True)
            layers = f"lowerdir=/{name},upperdir={disk},workdir={work},userxattr"
            script.append(f"mount -t overlay overlay -o '{layers}' /{name}")
        # runc would leave groups behind, which are the machine's.
        script.append("awk '$2 ~ \"^/sys/fs/cgroup\" {print $2}' /proc/mounts | xargs -n1 mount -o remount,bind,ro")
        script += [*prepare, "echo mounted", "exec cat"]
        command = ["unshare", "--mount", "--uts", "sh", "-c", "\n".join(script)]
        pipe = subprocess.PIPE
        process = self.namespace.run(lambda: subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe))
        told = process.stdout.readline()
        assert told == b"mounted\n", process.communicate()[1].decode()
        return process

    def words(self, *command):
        """The command line that runs a command where the node's files are."""
        own = f"/proc/{self._holder.pid}/ns"
        return ["nsenter", f"--mount={own}/mnt", f"--uts={own}/uts", "--", *map(str, command)]

    def run(self, *command, check=True):
        """Run a command on the node; returns what it did."""
        words = self.words(*command)
        done = self.namespace.run(lambda: subprocess.run(words, capture_output=True, text=True, check=False))
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def file(self, path):
        """A file of the node, as the test sees it."""
        return Path(f"/proc/{self._holder.pid}/root{path}")

    def log(self, name):
        return self.folder / f"{name}.log"

    def launch(self, name, *command, **environ):
        """Have a program of that name run on the node."""
        with self.log(name).open("ab") as log:
            self._programs[name] = self.namespace.run(
                lambda: subprocess.Popen(
                    self.words(*command),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={key: text for key, text in os.environ.items() if not key.startswith("FLANNELD_")} | environ,
                )
            )

    def end(self, name):
        program = self._programs.pop(name)
        program.terminate()
        program.wait(20)

    def close(self):
        for name in reversed(list(self._programs)):
            self.end(name)
        super().close()
        self._holder.communicate()
