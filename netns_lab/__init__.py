"""A network lab in namespaces: nodes, an underlay with a router, etcd, pods, and a flanneld on every node.

It drives the real executables and imports nothing of them. `up.py` tells in which order a lab comes to be.
"""
