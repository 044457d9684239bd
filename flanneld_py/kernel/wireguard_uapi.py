"""WireGuard in user space: started where the kernel has none, and spoken to by its socket (wireguard.com/xplatform).

The process is not ours to end: it carries packets, and goes on doing so while no daemon runs.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from flanneld_py.core.errors import KernelError
from flanneld_py.core.prefix import IPV4, format_address, parse_address, parse_prefix
from flanneld_py.core.wireguard import NO_KEY, Endpoint, WireguardPeer, WireguardState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flanneld_py.core.wireguard import DeviceChange, PeerChange

PROGRAM = "wireguard-go"
_FOLDER = Path("/var/run/wireguard")
_PATIENCE = 5.0
"""Seconds that an answer, or the start of the process, may take."""
_NO_DEVICE = 19


def find_program() -> str | None:
    """Return the path of the program, None if the machine has none."""
    return shutil.which(PROGRAM)


def start_process(program: str, name: str) -> None:
    """Make a device and the process that owns it. Raises KernelError."""
    # The socket that a killed process left there it replaces itself; to remove a living one's would end that.
    environment = {key: value for key, value in os.environ.items() if key != "LOG_LEVEL"}
    try:
        done = subprocess.run(
            [program, name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            env=environment,
            start_new_session=True,
            timeout=_PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelError(_NO_DEVICE, f"start {program} {name}", str(error)) from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise KernelError(_NO_DEVICE, f"start {program} {name}", lines[-1] if lines else "it says nothing")


def socket_path(name: str) -> Path:
    """Return where the process that owns a device listens."""
    return _FOLDER / f"{name}.sock"


class UapiControl:
    """Reads and changes one device by its process's socket."""

    def __init__(self, name: str) -> None:
        self._name = name

    def read(self) -> WireguardState:
        """Return what the device holds. Raises KernelError."""
        return decode_state(self._ask("get=1\n\n"))

    def change(self, change: DeviceChange) -> None:
        """Change the device; it may be half done when this raises KernelError."""
        self._ask(encode_change(change))

    def _ask(self, request: str) -> list[tuple[str, str]]:
        operation = f"ask {socket_path(self._name)}"
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as opened:
                opened.settimeout(_PATIENCE)
                opened.connect(str(socket_path(self._name)))
                opened.sendall(request.encode())
                with opened.makefile("r", encoding="utf-8") as answer:
                    lines = list(_until_blank(answer))
        except OSError as error:
            raise KernelError(error.errno or _NO_DEVICE, operation, error.strerror or str(error)) from error
        number = int(dict(lines).get("errno", "-1"))
        if number:
            raise KernelError(abs(number), operation, os.strerror(abs(number)))
        return lines


def _until_blank(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        key, _, value = line.rstrip("\n").partition("=")
        if not key:
            return
        yield key, value


def decode_state(lines: list[tuple[str, str]]) -> WireguardState:
    """Read the answer to `get=1`."""
    sections: list[dict[str, list[str]]] = [{}]
    for key, value in lines:
        if key == "public_key":
            sections.append({})
        sections[-1].setdefault(key, []).append(value)
    device, *peers = sections
    private_key = bytes.fromhex(device.get("private_key", [NO_KEY.hex()])[0])
    return WireguardState(private_key, int(device.get("listen_port", ["0"])[0]), tuple(map(_decode_peer, peers)))


def _decode_peer(section: dict[str, list[str]]) -> WireguardPeer:
    endpoint = section.get("endpoint")
    return WireguardPeer(
        bytes.fromhex(section["public_key"][0]),
        bytes.fromhex(section.get("preshared_key", [NO_KEY.hex()])[0]),
        None if endpoint is None else _decode_endpoint(endpoint[0]),
        int(section.get("persistent_keepalive_interval", ["0"])[0]),
        tuple(parse_prefix(text) for text in section.get("allowed_ip", ())),
        int(section.get("rx_bytes", ["0"])[0]),
        int(section.get("tx_bytes", ["0"])[0]),
    )


def _decode_endpoint(text: str) -> Endpoint:
    host, _, port = text.rpartition(":")
    family, address = parse_address(host.strip("[]").partition("%")[0])
    return Endpoint(family, address, int(port))


def encode_change(change: DeviceChange) -> str:
    """Write a `set=1` request."""
    lines = ["set=1"]
    if change.private_key is not None:
        lines.append(f"private_key={change.private_key.hex()}")
    if change.port is not None:
        lines.append(f"listen_port={change.port}")
    for peer in change.peers:
        lines += _encode_peer(peer)
    return "\n".join((*lines, "", ""))


def _encode_peer(peer: PeerChange) -> Iterator[str]:
    yield f"public_key={peer.public_key.hex()}"
    if peer.remove:
        yield "remove=true"
        return
    if peer.preshared_key is not None:
        yield f"preshared_key={peer.preshared_key.hex()}"
    if peer.endpoint is not None:
        host = format_address(peer.endpoint.family, peer.endpoint.address)
        yield f"endpoint={host if peer.endpoint.family == IPV4 else f'[{host}]'}:{peer.endpoint.port}"
    if peer.keepalive is not None:
        yield f"persistent_keepalive_interval={peer.keepalive}"
    if peer.replace_allowed:
        yield "replace_allowed_ips=true"
    for prefix in peer.allowed:
        yield f"allowed_ip={prefix}"
