"""Takes flanneld's flags, writes a subnet.env and says that it is ready; it moves no packet."""

import argparse
import http.server
import socketserver
from pathlib import Path


class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


parser = argparse.ArgumentParser()
parser.add_argument("--etcd-endpoints", required=True)
parser.add_argument("--subnet-file", type=Path, required=True)
parser.add_argument("--healthz-port", type=int, required=True)
arguments = parser.parse_args()
arguments.subnet_file.parent.mkdir(parents=True, exist_ok=True)
arguments.subnet_file.write_text(
    "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"
)
socketserver.TCPServer(("0.0.0.0", arguments.healthz_port), Ready).serve_forever()
