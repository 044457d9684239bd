"""Stands in for genuine Go flannel: a node wired by hand, with a lease in etcd as Go flannel writes it.

It takes flanneld's flags. The device, neighbours, FDB entries and routes are those of formats.md, made with pyroute2.
"""

import argparse
import base64
import http.client
import http.server
import json
import socketserver
import threading
import time
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from pyroute2 import IPRoute

SUBNET = IPv4Network("10.244.200.0/24")
MAC = "7a:e3:ab:24:37:fb"
PREFIX = "/coreos.com/network/subnets/"
BOOT = 3  # RTPROT_BOOT
ONLINK = 4  # RTNH_F_ONLINK


class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def call(endpoint, path, **body):
    connection = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=5)
    connection.request("POST", path, json.dumps(body))
    answer = json.load(connection.getresponse())
    connection.close()
    return answer


def base64_of(text):
    return base64.b64encode(text.encode()).decode()


def register(endpoint, public_ip):
    data = f'"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{MAC}"}}'
    value = f'{{"PublicIP":"{public_ip}","PublicIPv6":null,{data}}}'
    lease = call(endpoint, "/v3/lease/grant", TTL=86400)["ID"]
    key = f"{PREFIX}{SUBNET.network_address}-{SUBNET.prefixlen}"
    call(endpoint, "/v3/kv/put", key=base64_of(key), value=base64_of(value), lease=lease)


def read_peers(endpoint):
    """Yield subnet, public IP and MAC of every other node."""
    answer = call(endpoint, "/v3/kv/range", key=base64_of(PREFIX), range_end=base64_of(PREFIX[:-1] + "0"))
    for entry in answer.get("kvs", []):
        name = base64.b64decode(entry["key"]).decode().removeprefix(PREFIX)
        value = json.loads(base64.b64decode(entry["value"]))
        subnet = IPv4Network(name.replace("-", "/"))
        if subnet != SUBNET:
            yield subnet, IPv4Address(value["PublicIP"]), value["BackendData"]["VtepMAC"]


def make_device(netlink, uplink, public_ip):
    netlink.link(
        "add",
        ifname="flannel.1",
        kind="vxlan",
        address=MAC,
        vxlan_id=1,
        vxlan_link=uplink,
        vxlan_local=str(public_ip),
        vxlan_port=8472,
        vxlan_learning=False,
    )
    device = netlink.link_lookup(ifname="flannel.1")[0]
    netlink.addr("add", index=device, address=str(SUBNET.network_address), prefixlen=32)
    netlink.link("set", index=device, state="up")
    return device


def wire(netlink, device, subnet, public_ip, mac):
    base = str(subnet.network_address)
    netlink.neigh("replace", dst=base, lladdr=mac, ifindex=device, state="permanent")
    netlink.fdb("append", ifindex=device, lladdr=mac, dst=str(public_ip))
    netlink.route("replace", dst=str(subnet), gateway=base, oif=device, flags=ONLINK, proto=BOOT)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--etcd-endpoints", required=True)
    parser.add_argument("--subnet-file", type=Path, required=True)
    parser.add_argument("--healthz-port", type=int, required=True)
    arguments = parser.parse_args()
    endpoint = arguments.etcd_endpoints.split(",")[0]
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    with IPRoute() as netlink:
        uplink = netlink.link_lookup(ifname="eth0")[0]
        public = IPv4Interface(netlink.get_addr(index=uplink, family=2)[0].get("address") + "/24")
        device = make_device(netlink, uplink, public.ip)
        register(endpoint, public.ip)
        arguments.subnet_file.parent.mkdir(parents=True, exist_ok=True)
        arguments.subnet_file.write_text(
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.200.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"
        )
        server = socketserver.TCPServer(("0.0.0.0", arguments.healthz_port), Ready)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        wired = set()
        while True:
            for subnet, public_ip, mac in read_peers(endpoint):
                if subnet in wired:
                    continue
                wired.add(subnet)
                if public_ip in public.network:
                    netlink.route("replace", dst=str(subnet), gateway=str(public_ip), oif=uplink, proto=BOOT)
                else:
                    wire(netlink, device, subnet, public_ip, mac)
            time.sleep(0.05)


main()
