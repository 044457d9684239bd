"""How to reach the Kubernetes API and which Node is ours: what flags and environment say, as complete values.

Owns no connection and imports no client, so the command line can check its flags without paying for either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from flanneld_py.core.errors import ConfigError

DEFAULT_ANNOTATION_PREFIX = "flannel.alpha.coreos.com"
DEFAULT_NET_CONFIG = "/etc/kube-flannel/net-conf.json"

_PREFIX = re.compile(r"(?:[a-z0-9_-]+\.)+[a-z0-9_-]+/(?:[a-z0-9_-]+-)?")


@dataclass(frozen=True, slots=True)
class KubeOptions:
    """What `--kube-subnet-mgr` needs; the empty string stands for what is not given.

    Without `api_url` and `kubeconfig` the pod's service account is used, at `service_host`, an address or name, and
    `service_port`. Without `node_name` the Node is that on which the pod `pod_namespace`/`pod_name` runs.
    `annotation_prefix` ends in `/` or `-`.
    """

    node_name: str = ""
    pod_name: str = ""
    pod_namespace: str = ""
    api_url: str = ""
    kubeconfig: str = ""
    service_host: str = ""
    service_port: str = ""
    service_account: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount")
    annotation_prefix: str = f"{DEFAULT_ANNOTATION_PREFIX}/"
    net_config: Path = Path(DEFAULT_NET_CONFIG)
    set_network_unavailable: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot work; raises ConfigError."""
        if not self.node_name and not (self.pod_name and self.pod_namespace):
            raise ConfigError("NODE_NAME", "it is not set, and neither are POD_NAME and POD_NAMESPACE: name our Node")
        if not (self.api_url or self.kubeconfig or (self.service_host and self.service_port)):
            raise ConfigError(
                "kubeconfig-file",
                "it is missing; this is no pod (KUBERNETES_SERVICE_HOST and _PORT are not set), "
                "so give it or --kube-api-url",
            )


def parse_annotation_prefix(text: str) -> str:
    """Complete a prefix of annotations as Go flannel does: `a.b` to `a.b/`, `a.b/c` to `a.b/c-`; raise ConfigError."""
    prefix = text if "/" in text else f"{text}/"
    if not prefix.endswith(("/", "-")):
        prefix += "-"
    if _PREFIX.fullmatch(prefix) is None:
        raise ConfigError("kube-annotation-prefix", f"{text!r} is not of the form flannel.example.com or example.com/x")
    return prefix
