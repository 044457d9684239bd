"""Pods for tests, of the image that there is on every node of a cluster."""

from tests.cni_plugin.containerd import FOREVER, IMAGE


def pod_template(name, command=FOREVER, **container):
    return {
        "metadata": {"labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": IMAGE, "command": command, **container}],
        },
    }


def deployment(name, replicas, template):
    """As many pods, spread evenly over the nodes."""
    selector = {"matchLabels": {"app": name}}
    template["spec"]["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": selector,
        }
    ]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": selector, "template": template},
    }
