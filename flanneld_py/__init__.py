"""flanneld-py: a Flannel-compatible overlay network daemon."""

__version__ = "0.1.0"
