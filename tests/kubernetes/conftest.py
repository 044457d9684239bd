"""A cluster of real nodes for each file of tests."""

import shutil

import pytest

from tests.conftest import Namespace
from tests.kubernetes.cluster import KubernetesCluster

_NEEDED = ("containerd", "ctr", "runc", "iptables", "busybox")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, request):
    """Kubernetes without a node; with more networks of pods where the file of tests has MORE_NETWORKS."""
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: apt-get install containerd runc iptables busybox-static")
    namespaces = []

    def make_namespace():
        namespaces.append(Namespace())
        return namespaces[-1]

    more = getattr(request.module, "MORE_NETWORKS", ())
    made = KubernetesCluster(make_namespace, tmp_path_factory.mktemp("cluster"), *more)
    try:
        made.start()
        yield made
    finally:
        made.close()
        for namespace in namespaces:
            namespace.close()
