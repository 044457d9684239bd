"""The delegate's ipMasq with the node's own iptables."""

import shutil
import subprocess
from pathlib import Path

import pytest

from flanneld_py.pods.masquerade import chain_name

IPTABLES = shutil.which("iptables")

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(IPTABLES is None, reason="iptables is missing: apt-get install iptables"),
]


def rules(node, program):
    command = [shutil.which(program), "-w", "-t", "nat", "-S"]
    done = node.host.run(lambda: subprocess.run(command, capture_output=True, text=True, check=True))
    return done.stdout.splitlines()


def test_the_chains_come_and_go(node):
    node.write_env("10.5.0.0/16", "10.5.2.1/24", "fd42::/48", "fd42:0:0:1::1/64", ip_masq=False)
    before = rules(node, "iptables"), rules(node, "ip6tables")
    pod = node.make_pod()
    path = f"{Path(IPTABLES).parent}:/usr/sbin:/usr/bin:/bin"
    node.call("ADD", "c1", pod.path, PATH=path)
    chain = chain_name("cbr0", "c1")
    comment = '-m comment --comment "name: \\"cbr0\\" id: \\"c1\\""'
    assert [rule for rule in rules(node, "iptables") if rule not in before[0]] == [
        f"-N {chain}",
        f"-A POSTROUTING -s 10.5.2.2/32 {comment} -j {chain}",
        f"-A {chain} -d 10.5.2.0/24 {comment} -j ACCEPT",
        f"-A {chain} ! -d 224.0.0.0/4 {comment} -j MASQUERADE",
    ]
    assert f"-A {chain} ! -d ff00::/8 {comment} -j MASQUERADE" in rules(node, "ip6tables")
    node.call("DEL", "c1", pod.path, PATH=path)
    assert (rules(node, "iptables"), rules(node, "ip6tables")) == before
