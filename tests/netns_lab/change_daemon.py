"""Another flanneld on a node of a lab that is up."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path

FLANNELD = str(Path(sys.executable).with_name("flanneld"))
ETCD = "http://192.0.2.11:2379"


@contextmanager
def daemon(lab, node):
    """A flanneld in the place of the one that the lab has started on a node."""
    # The number counts in the lab's own process namespace.
    pid = (lab.root / "nodes" / node / "pid").read_text()
    lab.run("exec", node, "--", "kill", pid)
    words = ("--subnet-file=/run/flannel/subnet.env", f"--etcd-endpoints={ETCD}", "--healthz-port=8081")
    process = lab.start("exec", node, "--", FLANNELD, *words)
    try:
        assert any("ready: subnet_file=" in line for line in process.stderr)
        yield
    finally:
        process.terminate()
        process.communicate(timeout=60)


def devices(lab, node):
    """The names of flannel's devices."""
    text = lab.run("exec", node, "--", "ip", "-json", "link", "show").stdout
    return {name for link in json.loads(text) if (name := link["ifname"]).startswith("flannel")}
