"""Go flannel as its own manifest runs it: names, rights and flags are those of its Documentation/kube-flannel.yml.

Its programs are mounted from where `make peers` has built them, into the image of ours, which has the C library and the
iptables that they need as well.
"""

import json
from pathlib import Path

PEERS = (Path(__file__).parents[2] / ".cache" / "peers").resolve()
NAMESPACE = "kube-flannel"
_LABELS = {"app": "flannel", "k8s-app": "flannel"}
_CONFLIST = {
    "name": "cbr0",
    "cniVersion": "0.3.1",
    "plugins": [
        {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}
_INSTALL = """\
import os, shutil
for source, target in (("/peers/cni/flannel", "/opt/cni/bin/flannel"),
                       ("/etc/kube-flannel/cni-conf.json", "/etc/cni/net.d/10-flannel.conflist")):
    shutil.copy(source, target + ".new")
    os.rename(target + ".new", target)
"""


def _mounts(*pairs):
    return [{"name": name, "mountPath": path} for name, path in pairs]


def _field(name, path):
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def go_flannel(image, net_config):
    """All of its objects."""
    account = {"kind": "ServiceAccount", "name": "flannel", "namespace": NAMESPACE}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "flannel"}
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
    ]
    rbac = "rbac.authorization.k8s.io/v1"
    data = {"cni-conf.json": json.dumps(_CONFLIST), "net-conf.json": net_config}
    own = {"namespace": NAMESPACE, "labels": _LABELS}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": _LABELS}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": own | {"name": "flannel"}},
        {"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": "flannel"}, "rules": rules},
        {
            "apiVersion": rbac,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "flannel"},
            "roleRef": role,
            "subjects": [account],
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": own | {"name": "kube-flannel-cfg"}, "data": data},
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": own | {"name": "kube-flannel-ds"},
            "spec": {
                "selector": {"matchLabels": _LABELS},
                "template": {"metadata": {"labels": _LABELS}, "spec": _pod(image)},
            },
        },
    ]


def _pod(image):
    linux = {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [linux]}]}
    folders = {
        "run": "/run/flannel",
        "cni-plugin": "/opt/cni/bin",
        "cni": "/etc/cni/net.d",
        "peers": str(PEERS),
        "xtables-lock": "/run/xtables.lock",
    }
    kinds = {"peers": "Directory", "xtables-lock": "FileOrCreate"}
    config, peers = ("flannel-cfg", "/etc/kube-flannel"), ("peers", "/peers")
    return {
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}},
        "hostNetwork": True,
        "priorityClassName": "system-node-critical",
        "tolerations": [{"operator": "Exists", "effect": "NoSchedule"}],
        "serviceAccountName": "flannel",
        "initContainers": [
            {
                "name": "install-cni",
                "image": image,
                "command": ["python3", "-c", _INSTALL],
                "volumeMounts": _mounts(("cni", "/etc/cni/net.d"), ("cni-plugin", "/opt/cni/bin"), config, peers),
            }
        ],
        "containers": [
            {
                "name": "kube-flannel",
                "image": image,
                "command": ["/peers/flannel", "--ip-masq", "--kube-subnet-mgr"],
                "securityContext": {"privileged": False, "capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}},
                "env": [_field("POD_NAME", "metadata.name"), _field("POD_NAMESPACE", "metadata.namespace")],
                "volumeMounts": _mounts(("run", "/run/flannel"), ("xtables-lock", "/run/xtables.lock"), config, peers),
            }
        ],
        "volumes": [
            {"name": "flannel-cfg", "configMap": {"name": "kube-flannel-cfg"}},
            *(
                {"name": name, "hostPath": {"path": path, "type": kinds.get(name, "DirectoryOrCreate")}}
                for name, path in folders.items()
            ),
        ],
    }
