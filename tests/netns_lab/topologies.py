"""Topologies of which several tests are: a pod on each node, and nodes left and right of a router."""

import json

SUBNETS = {"left": "172.20.1.0/24", "right": "172.20.2.0/24"}
LEFT, RIGHT = SUBNETS


def topology(*sides, backend="vxlan", name="n", daemons=None, network=None, **options):
    """The file of a lab whose nodes lie on these sides, the first one called n1, if `name` is n.

    `daemons` are the commands of those nodes that run another one, by the node's name; `network` are more keys of the
    network, `options` of its backend.
    """
    daemons = daemons or {}
    nodes = {f"{name}{number}": side for number, side in enumerate(sides, 1)}
    lines = ["pods = 1", "[underlay]"]
    lines += [_set(side, SUBNETS[side]) for side in SUBNETS if side in sides]
    for node, side in nodes.items():
        lines += [f"[nodes.{node}]", _set("underlay", side)]
        lines += [_set("daemon", [str(word) for word in daemons[node]])] if node in daemons else []
    lines += ["[network]", *(_set(*one) for one in ({"Network": "10.244.0.0/16"} | (network or {})).items())]
    lines += ["[network.Backend]", *(_set(*one) for one in ({"Type": backend} | options).items())]
    return "\n".join(lines)


def _set(key, value):
    # What is text, a number, a truth value or a list of these is written as JSON writes it.
    return f"{key} = {json.dumps(value)}"
