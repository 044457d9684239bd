"""Takes flanneld's flags and answers misses for the made-up leases of `netns_lab.bench` by arithmetic, without etcd."""

import argparse
import signal
import socket
import struct
import sys
from pathlib import Path

from pyroute2 import IPRoute

from netns_lab.bench.leases import make_leases
from netns_lab.routes import decode_attributes, split_messages

RTM_GETNEIGH = 30
RTMGRP_NEIGH = 4
NUD_PERMANENT = 0x80
ONLINK = 4
NTF_SELF = 2
OWN = "10.0.1.0"

parser = argparse.ArgumentParser(prog=Path(sys.argv[0]).name)
parser.add_argument("--version", action="version", version="0")
parser.add_argument("--etcd-endpoints", required=True)
parser.add_argument("--subnet-file", type=Path, required=True)
parser.add_argument("--on-demand", action="store_true", required=True)
parser.add_argument("--deaf", action="store_true", help="answer nothing")
arguments = parser.parse_args()

netlink = IPRoute()
uplink = netlink.link_lookup(ifname="eth0")[0]
options = {"vxlan_id": 1, "vxlan_port": 8472, "vxlan_learning": 0, "vxlan_link": uplink}
netlink.link("add", ifname="flannel.1", kind="vxlan", mtu=1450, **options)
device = netlink.link_lookup(ifname="flannel.1")[0]
for name, value in (("app_solicit", 1), ("ucast_solicit", 0), ("mcast_solicit", 0)):
    Path(f"/proc/sys/net/ipv4/neigh/flannel.1/{name}").write_text(f"{value}\n")
netlink.addr("add", index=device, address=OWN, prefixlen=32)
netlink.link("set", index=device, state="up")
netlink.route("add", dst="10.0.0.0/8", oif=device, scope=253)

misses = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
misses.bind((0, RTMGRP_NEIGH))
arguments.subnet_file.parent.mkdir(parents=True, exist_ok=True)
arguments.subnet_file.write_text("FLANNEL_NETWORK=10.0.0.0/8\nFLANNEL_SUBNET=10.0.1.1/24\n")
signal.signal(signal.SIGTERM, lambda *_: sys.exit())

first = make_leases(1, 24)[0].subnet
while True:
    for kind, payload in split_messages(misses.recv(1 << 16)):
        if kind != RTM_GETNEIGH or arguments.deaf:
            continue
        asked = decode_attributes(payload[12:])[1]
        [lease] = make_leases(1, 24, (struct.unpack("!I", asked)[0] - first) >> 8)
        mac, subnet = lease.mac.hex(":"), socket.inet_ntoa(lease.subnet.to_bytes(4, "big"))
        remote = socket.inet_ntoa(lease.public_ip.to_bytes(4, "big"))
        netlink.fdb("replace", ifindex=device, lladdr=mac, dst=remote, state=NUD_PERMANENT, flags=NTF_SELF)
        for each in (socket.inet_ntoa(asked), subnet):
            netlink.neigh("replace", dst=each, lladdr=mac, ifindex=device, state=NUD_PERMANENT)
        netlink.route("replace", dst=f"{subnet}/24", gateway=subnet, oif=device, flags=ONLINK)
