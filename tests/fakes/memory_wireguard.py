"""A WireGuard device in memory, behind the same interface as the real ones."""

from flanneld_py.core.errors import KernelError
from flanneld_py.core.wireguard import NO_KEY, WireguardPeer, WireguardState


class MemoryControl:
    """`refused` holds public keys that no peer may have."""

    def __init__(self):
        self.state = WireguardState(NO_KEY, 0, ())
        self.refused = set()
        self.requests = 0

    def read(self):
        return self.state

    def change(self, change):
        self.requests += 1
        peers = {peer.public_key: peer for peer in self.state.peers}
        try:
            for wanted in change.peers:
                self._change_peer(peers, wanted)
        finally:
            key = self.state.private_key if change.private_key is None else change.private_key
            port = self.state.port if change.port is None else change.port
            self.state = WireguardState(key, port, tuple(peers.values()))

    def _change_peer(self, peers, wanted):
        if wanted.public_key in self.refused:
            raise KernelError(22, "change", "refused")
        if wanted.remove:
            peers.pop(wanted.public_key, None)
            return
        for key, other in peers.items():
            peers[key] = other._replace(allowed=tuple(one for one in other.allowed if one not in wanted.allowed))
        peer = peers.get(wanted.public_key, WireguardPeer(wanted.public_key, NO_KEY, None, 0, ()))
        peers[wanted.public_key] = peer._replace(
            preshared_key=peer.preshared_key if wanted.preshared_key is None else wanted.preshared_key,
            endpoint=wanted.endpoint or peer.endpoint,
            keepalive=peer.keepalive if wanted.keepalive is None else wanted.keepalive,
            allowed=(() if wanted.replace_allowed else peer.allowed) + wanted.allowed,
        )
