"""The message that neighbours and forwarding entries share (include/uapi/linux/neighbour.h)."""

from __future__ import annotations

import struct

RTM_NEWNEIGH = 28
RTM_DELNEIGH = 29
RTM_GETNEIGH = 30

NDA_DST = 1
NDA_LLADDR = 2

NDMSG = struct.Struct("=BxxxiHBB")
"""Address family, device, state (NUD_…), flags (NTF_…), type."""
