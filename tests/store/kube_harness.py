"""The contract suite's hands on a Kubernetes cluster: leases are Nodes, the configuration is a file."""

import asyncio
import random
import re

from flanneld_py.core.lease import parse_attrs, parse_key
from flanneld_py.core.prefix import IPV4, IPV6, format_address
from flanneld_py.store.kube_options import KubeOptions
from flanneld_py.store.kube_subnet_manager import KubeSubnetManager
from tests.store.contract import node, value

OWN = "own"


class KubeHarness:
    def __init__(self, server, folder):
        wrong = value(node(3)).replace("172.30.0.3", "172.30.0.300")
        self.unreadable = {"10.5.3.0-24": wrong, "10.5.4.0-24": "nonsense"}
        self.server = server
        self.net_config = folder / "net-conf.json"
        self._managers = []

    def options(self, **changes):
        changes.setdefault("node_name", OWN)
        changes.setdefault("kubeconfig", str(self.server.kubeconfig))
        return KubeOptions(net_config=self.net_config, **changes)

    def manager(self, **changes):
        rng = random.Random(len(self._managers))  # noqa: S311 - repeatable
        manager = KubeSubnetManager(self.options(**changes), rng, config_interval=0.02)
        self._managers.append(manager)
        if OWN not in self.server.nodes():
            self.server.add_node(OWN, "10.5.200.0/24", "fd05:0:0:200::/64")
        return manager

    @staticmethod
    def name(key):
        return "n-" + re.sub("[^a-z0-9]+", "-", key)

    async def set_config(self, text):
        if text is None:
            self.net_config.unlink()
        else:
            fresh = self.net_config.with_suffix(".new")
            fresh.write_text(text)
            fresh.replace(self.net_config)

    async def put(self, key, text):
        await asyncio.to_thread(self._put, key, text)

    def _put(self, key, text):
        name, annotations = self.name(key), annotations_of(text)
        if name in self.server.nodes():
            self.server.annotate(name, **annotations)
        else:
            cidrs = [str(prefix) for prefix in parse_key(key) if prefix is not None]
            self.server.add_node(name, *cidrs, annotations=annotations)

    async def delete(self, key):
        await asyncio.to_thread(self.server.delete_node, self.name(key))

    async def close(self):
        for manager in self._managers:
            await manager.close()
        self.server.forget_nodes()


def annotations_of(text):
    """What a Node carries whose lease would be this value in etcd."""
    try:
        attrs = parse_attrs(text)
    except ValueError:
        return {"kube-subnet-manager": "true", "public-ip": text}
    told = {
        "kube-subnet-manager": "true",
        "backend-type": attrs.backend_type,
        "backend-data": attrs.backend_data or "null",
        "public-ip": format_address(IPV4, attrs.public_ip or 0),
    }
    if attrs.public_ipv6 is not None:
        told |= {
            "backend-v6-data": attrs.backend_v6_data or "null",
            "public-ipv6": format_address(IPV6, attrs.public_ipv6),
        }
    return told
