"""What any backend has to carry between pods."""

import json
import sys
from itertools import permutations
from pathlib import Path


def exercise(lab, mtu):
    """Send datagrams of all sizes, whole and in fragments, and a stream, from each pod to each other one."""
    lab.await_reach()
    pods = {file.stem: json.loads(file.read_text()) for file in (lab.root / "pods").glob("*.json")}
    addresses = {name: record["result"]["ips"][0]["address"].partition("/")[0] for name, record in pods.items()}
    script = str(Path(__file__).with_name("probe.py"))
    for source, target in permutations(addresses, 2):
        server = lab.start("exec", target, "--", sys.executable, script, "serve")
        try:
            assert server.stdout.readline() == "serving\n"
            told = lab.run("exec", source, "--", sys.executable, script, addresses[target], str(mtu)).stdout
            assert told == "all is well\n"
        finally:
            server.kill()
            server.communicate()
