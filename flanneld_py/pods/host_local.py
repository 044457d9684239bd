"""Addresses of containers, noted down as the reference IPAM plugin host-local does, so that the two may share a store.

Owns the folder `<data dir>/<network>`: one file an address, holding its container and device; `last_reserved_ip.N`,
from which the search goes on, so that an address just given back is the last to be given again; `lock`; and, of our
own, `boot_id`, which host-local takes no notice of.
"""

from __future__ import annotations

import fcntl
import os

from flanneld_py.core.named_tuple import TYPE_CHECKING, NamedTuple
from flanneld_py.core.prefix import Prefix, format_address, parse_address
from flanneld_py.pods import errors
from flanneld_py.pods.bridge_conf import StoreConf, first_address, gateway_of, last_address
from flanneld_py.pods.errors import CniError
from flanneld_py.pods.fields import is_name
from flanneld_py.pods.files import overwrite_file, read_file, replace_file, write_new_file
from flanneld_py.pods.result import PodAddress

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

    Holding = tuple[int, int]
    """An address that is held: family and value."""

    Contents = dict[tuple[str, int], bytes]
    """What files hold, by their names and inode numbers."""

_FOLDER_MODE = 0o755
_FILE_MODE = 0o600
_LOCK = "lock"
_LAST = "last_reserved_ip."
_BOOT = "boot_id"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_SEPARATOR = "\r\n"
_boot_id: bytes | None = None
"""As long as this process lives there is no other boot."""
_ADDRESS_CHARACTERS = frozenset("0123456789abcdefABCDEF.:")
_seen: dict[str, Contents] = {}
"""What the addresses' files of a folder held when they were last read; touched only by who has the folder's lock."""


def pick_address(subnet: Prefix, last: int | None, taken: Container[int]) -> int | None:
    """Return the next free address behind the last one given, going round; None if there is none."""
    first, end = first_address(subnet), last_address(subnet)
    start = last + 1 if last is not None and first <= last < end else first
    for candidates in (range(start, end + 1), range(first, start)):
        for candidate in candidates:
            if candidate not in taken:
                return candidate
    return None


def _read_boot_id() -> bytes:
    global _boot_id  # noqa: PLW0603 - the kernel takes longer over this file than over any other
    if _boot_id is None:
        _boot_id = read_file(_BOOT_ID) or b""
    return _boot_id


class Holder(NamedTuple):
    """An address as its file is named, and the container and device that hold it; old files do not say the device."""

    name: str
    path: str
    container_id: str
    ifname: str


class _Taken:
    """The values of a family's addresses for which there is a file.

    Told by their names: with hundreds of containers, reading each name as an address takes longer than all the rest.
    """

    def __init__(self, names: frozenset[str], family: int) -> None:
        self._names = names
        self._family = family

    def __contains__(self, address: object) -> bool:
        return isinstance(address, int) and format_address(self._family, address) in self._names


class AddressStore:
    """A network's addresses, locked against every other plugin from entering the context until leaving it.

    Raises OSError.
    """

    def __init__(self, conf: StoreConf) -> None:
        self._folder = f"{conf.folder}/{conf.network}"
        self._lock = -1

    def __enter__(self) -> Self:
        try:
            self._lock = self._open_lock()
        except FileNotFoundError:
            os.makedirs(self._folder, _FOLDER_MODE, exist_ok=True)
            self._lock = self._open_lock()
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)

    def _open_lock(self) -> int:
        return os.open(f"{self._folder}/{_LOCK}", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)

    def find(self, container_id: str, ifname: str) -> tuple[Holding, ...]:
        """Return the addresses that a container's device holds."""
        return tuple(parse_address(holder.name) for holder in _of_device(self._held_by(container_id), ifname))

    def held(self) -> list[Holder]:
        """Return who holds addresses."""
        return [holder for holder in self._holders(self._contents()) if is_name(holder.container_id)]

    def notice_boot(self) -> bool:
        """Say whether the machine was started anew since this was last called; the first time it is not known."""
        present = _read_boot_id()
        noted = read_file(f"{self._folder}/{_BOOT}")
        if noted != present:
            replace_file(f"{self._folder}/{_BOOT}", present, _FILE_MODE)
        return noted is not None and noted != present

    def is_exhausted(self, subnet: Prefix) -> bool:
        """Say whether no address of a subnet is left."""
        return pick_address(subnet, None, _Taken(self._names(), subnet.family)) is None

    def reserve(
        self, subnets: tuple[Prefix, ...], requested: tuple[Holding, ...], container_id: str, ifname: str
    ) -> tuple[PodAddress, ...]:
        """Reserve an address in each subnet, the requested one where there is one for it.

        Raises CniError with code 50 if a subnet is exhausted, 7 if a requested address is taken; then nothing is
        reserved.
        """
        content = f"{container_id}{_SEPARATOR}{ifname}".encode()
        names = self._names()
        done: list[PodAddress] = []
        try:
            for index, subnet in enumerate(subnets):
                taken = _Taken(names, subnet.family)
                address = self._choose(index, subnet, _wanted(subnet, requested), taken)
                text = format_address(subnet.family, address)
                write_new_file(f"{self._folder}/{text}", content, _FILE_MODE)
                done.append(PodAddress(subnet, address, gateway_of(subnet)))
                overwrite_file(f"{self._folder}/{_LAST}{index}", text.encode(), _FILE_MODE)
        except BaseException:
            self.give_back((reserved.subnet.family, reserved.address) for reserved in done)
            raise
        return tuple(done)

    def release(self, container_id: str, ifname: str) -> bool:
        """Give back what a container's device holds, and say whether the container holds more by other devices.

        Holding nothing is no error.
        """
        begin = container_id.encode()
        seen = _seen.get(self._folder, {})
        held = self._held_by(container_id, {key: held for key, held in seen.items() if not held.startswith(begin)})
        if not _of_device(held, ifname):  # what was seen of others may be out of date
            held = self._held_by(container_id)
        given_back = _of_device(held, ifname)
        for holder in given_back:
            os.unlink(holder.path)
        return len(given_back) < len(held)

    def give_back(self, held: Iterable[Holding]) -> None:
        """Give back addresses that are held, whoever holds them."""
        for holding in held:
            os.unlink(f"{self._folder}/{format_address(*holding)}")

    def _choose(self, index: int, subnet: Prefix, wanted: int | None, taken: Container[int]) -> int:
        if wanted is not None:
            if wanted in taken:
                text = format_address(subnet.family, wanted)
                raise CniError(errors.INVALID_CONFIG, f"the requested address {text} is held by another container")
            return wanted
        address = pick_address(subnet, self._last(index), taken)
        if address is None:
            raise CniError(
                errors.PLUGIN_NOT_AVAILABLE,
                f"no address is left in {subnet}",
                f"all are held by the containers named in {self._folder}",
            )
        return address

    def _last(self, index: int) -> int | None:
        # One of another subnet, or even family, counts for nothing when the next is picked.
        content = read_file(f"{self._folder}/{_LAST}{index}")
        try:
            return parse_address((content or b"").decode().strip())[1]
        except ValueError:
            return None

    def _names(self) -> frozenset[str]:
        return frozenset(os.listdir(self._folder))

    def _held_by(self, container_id: str, seen: Contents | None = None) -> list[Holder]:
        begin = container_id.encode()
        contents = ((name, content) for name, content in self._contents(seen) if content.startswith(begin))
        return [holder for holder in self._holders(contents) if holder.container_id == container_id]

    def _holders(self, contents: Iterable[tuple[str, bytes]]) -> Iterator[Holder]:
        for name, content in contents:
            if _is_address(name):
                container_id, _, ifname = content.decode(errors="replace").partition(_SEPARATOR)
                yield Holder(name, f"{self._folder}/{name}", container_id, ifname)

    def _contents(self, seen: Contents | None = None) -> Iterator[tuple[str, bytes]]:
        """Give the name and the content of each address's file; what is in `seen` is not read again.

        No plugin writes into a file that is there: it holds the same as long as it is the same by its inode number.
        """
        present = _seen[self._folder] = {}
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if not _ADDRESS_CHARACTERS.issuperset(entry.name):
                    continue  # the lock, the last ones, and what is not host-local's
                key = entry.name, entry.inode()
                content = seen.get(key) if seen else None
                if content is None:
                    content = read_file(f"{self._folder}/{entry.name}")
                if content is not None:
                    present[key] = content
                    yield entry.name, content.strip()


def _of_device(held: Sequence[Holder], ifname: str) -> list[Holder]:
    # Files of host-local before 0.8 hold the container alone; they count if none names the device as well.
    return [holder for holder in held if holder.ifname == ifname] or [holder for holder in held if not holder.ifname]


def _is_address(name: str) -> bool:
    try:
        parse_address(name)
    except ValueError:
        return False
    return True


def _wanted(subnet: Prefix, requested: tuple[Holding, ...]) -> int | None:
    return next((value for family, value in requested if family == subnet.family and subnet.holds(value)), None)
