"""Hears of a namespace's new IPv4 routes the moment the kernel tells (rtnetlink(7), group RTNLGRP_IPV4_ROUTE)."""

import socket
from pathlib import Path
from typing import Self

from netns_lab.bench.entries import decode_route_key
from netns_lab.namespaces import in_network
from netns_lab.routes import split_messages

RTM_NEWROUTE = 24
RTMGRP_IPV4_ROUTE = 0x40
RECEIVE_SIZE = 1 << 16


class RouteListener:
    """A socket on which every new route is told; close it after use."""

    def __init__(self, network: Path) -> None:
        with in_network(network):
            self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            self.socket.bind((0, RTMGRP_IPV4_ROUTE))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def hear(self) -> frozenset[bytes]:
        """Return the routes of the next datagram, keyed as in `entries.py`."""
        messages = split_messages(self.socket.recv(RECEIVE_SIZE))
        keys = [decode_route_key(payload) for kind, payload in messages if kind == RTM_NEWROUTE]
        return frozenset(key for key in keys if key is not None)
