"""A node on which firewalld runs as Debian has it, with a message bus of its own; and what asks it."""

import shutil

import pytest

from tests.node_with_files import NodeWithFiles
from tests.waiting import wait_until

BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
<type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default">
<allow send_destination="*"/><allow eavesdrop="true"/><allow own="*"/><allow user="*"/>
</policy>
</busconfig>
"""
START_SECONDS = 60


class FirewalledNode(NodeWithFiles):
    """A node whose firewalld has no files but those that it comes with."""

    def __init__(self, cluster, number, namespace):
        super().__init__(cluster, number, namespace, "mkdir /run/dbus", f"cat > /run/bus.conf <<'END'\n{BUS}END")
        self.launch("bus", "dbus-daemon", "--config-file=/run/bus.conf", "--nofork", "--nopidfile")

    def start_firewalld(self, backend="nftables"):
        wait_until(self.file("/run/dbus/system_bus_socket").exists)
        self.run("sed", "-i", f"s/^FirewallBackend=.*/FirewallBackend={backend}/", "/etc/firewalld/firewalld.conf")
        self.launch("firewalld", "firewalld", "--nofork", "--nopid")
        wait_until(lambda: self.run("firewall-cmd", "--state", check=False).returncode == 0, START_SECONDS)

    def reload_firewalld(self):
        # Its ebtables-restore fails where others write to nftables meanwhile, once in 30 times (iptables 1.8.9).
        with self.daemons[-1].standing_still():
            self.run("firewall-cmd", "--reload")


def need_firewalld():
    for program, package in (
        ("firewalld", "firewalld"),
        ("firewall-cmd", "firewalld"),
        ("dbus-daemon", "dbus-daemon"),
        ("nft", "nftables"),
    ):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}: apt-get install {package}")
