"""The one place that imports gRPC, because its settings in the environment must be made before that.

Its C core would write connection noise to standard error, and hook fork(), which the daemon never does. What goes wrong
comes as an exception anyway and is logged once, by us.
"""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc
from grpc import aio

__all__ = ["aio", "grpc"]
