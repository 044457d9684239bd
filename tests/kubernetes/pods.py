"""Pods for tests, of the image that there is on every node of a cluster."""

from tests.cni_plugin.pod_image import FOREVER, IMAGE


def pod_template(name, command=FOREVER, **container):
    return {
        "metadata": {"labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": IMAGE, "command": command, **container}],
        },
    }


def on_every_node(name, template):
    """A pod on every node."""
    selector = {"matchLabels": {"app": name}}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name},
        "spec": {"selector": selector, "template": template},
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


def pod_on(node, name):
    """A pod that does nothing, on that node."""
    template = pod_template(name)
    template["spec"]["nodeName"] = node.name
    return {"apiVersion": "v1", "kind": "Pod", **template, "metadata": template["metadata"] | {"name": name}}


def service(name, app, *ports, **spec):
    """A Service of pods; `ports` are (protocol, port, node port or None)."""
    listed = [
        {"name": f"{protocol.lower()}-{port}", "protocol": protocol, "port": port}
        | ({"nodePort": node_port} if node_port else {})
        for protocol, port, node_port in ports
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": app}, "ports": listed, **spec},
    }
