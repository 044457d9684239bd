"""HPACK, the headers of HTTP/2 (RFC 7541): writing those of our requests, reading those of answers. Pure.

What we write uses no compression beyond the static table: a few bytes more, and nothing to keep in step. What we read
may use all of it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

TABLE_SIZE = 4096
"""Bytes that the peer may have us remember of its headers, as long as we ask for nothing else (RFC 9113, 6.5.2)."""
_ENTRY_OVERHEAD = 32
_WIDEST = 28
"""Bits of a number beyond which none is meant."""

_STATIC = [
    (line.partition(" ")[0], line.partition(" ")[2])
    for line in (
        ":authority\n:method GET\n:method POST\n:path /\n:path /index.html\n:scheme http\n:scheme https\n"
        ":status 200\n:status 204\n:status 206\n:status 304\n:status 400\n:status 404\n:status 500\n"
        "accept-charset\naccept-encoding gzip, deflate\naccept-language\naccept-ranges\naccept\n"
        "access-control-allow-origin\nage\nallow\nauthorization\ncache-control\ncontent-disposition\n"
        "content-encoding\ncontent-language\ncontent-length\ncontent-location\ncontent-range\ncontent-type\n"
        "cookie\ndate\netag\nexpect\nexpires\nfrom\nhost\nif-match\nif-modified-since\nif-none-match\nif-range\n"
        "if-unmodified-since\nlast-modified\nlink\nlocation\nmax-forwards\nproxy-authenticate\n"
        "proxy-authorization\nrange\nreferer\nrefresh\nretry-after\nserver\nset-cookie\n"
        "strict-transport-security\ntransfer-encoding\nuser-agent\nvary\nvia\nwww-authenticate\n"
    ).splitlines()
]
"""Appendix A; a name, and a value where there is one."""
_INDEX = {name: index for index, (name, _) in reversed(list(enumerate(_STATIC, 1)))}
_FULL_INDEX = {entry: index for index, entry in enumerate(_STATIC, 1)}

_CODE_LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b08060606"
    "0505050606060606060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e06"
    "0f05060506050606060507070606060506070605050607070707070f0b0e0d1c14161414161616171617171717171817"
    "181816171817171717151617161717181615141616171715171616181516171715151615171617171416161617161617"
    "1a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b14181415161515171616191918181a17"
    "1a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a"
)
"""Appendix B: the bits of each byte's code. The code is canonical, so they say all of it."""


class HeaderError(ValueError):
    """A block of headers that breaks the rules; nothing after it on the connection can be read."""


def encode_headers(headers: Iterable[tuple[str, str]]) -> bytes:
    """Write headers as literals that nobody is to remember, and by the static table where they are in it."""
    block = bytearray()
    for name, value in headers:
        whole = _FULL_INDEX.get((name, value))
        if whole is not None:
            block += _encode_integer(whole, 7, 0x80)
            continue
        block += _encode_integer(_INDEX.get(name, 0), 4, 0)
        if name not in _INDEX:
            block += _encode_text(name)
        block += _encode_text(value)
    return bytes(block)


def _encode_text(text: str) -> bytes:
    data = text.encode()
    return _encode_integer(len(data), 7, 0) + data


def _encode_integer(value: int, width: int, flags: int) -> bytes:
    limit = (1 << width) - 1
    if value < limit:
        return bytes((flags | value,))
    data = bytearray((flags | limit,))
    value -= limit
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


class HeaderReader:
    """Reads the blocks of one connection, in their order: each may refer to those before it."""

    def __init__(self) -> None:
        self._table: deque[tuple[str, str]] = deque()
        self._size = 0
        self._limit = TABLE_SIZE

    def read(self, block: bytes) -> list[tuple[str, str]]:
        """Return the headers of a block. Raises HeaderError."""
        headers: list[tuple[str, str]] = []
        position, end = 0, len(block)
        try:
            while position < end:
                first = block[position]
                if first & 0x80:
                    index, position = _decode_integer(block, position, 7)
                    headers.append(self._entry(index))
                elif first & 0xE0 == 0x20:
                    size, position = _decode_integer(block, position, 5)
                    self._resize(size)
                else:
                    remember = bool(first & 0x40)
                    index, position = _decode_integer(block, position, 6 if remember else 4)
                    if index:
                        name = self._entry(index)[0]
                    else:
                        name, position = _decode_text(block, position)
                    value, position = _decode_text(block, position)
                    headers.append((name, value))
                    if remember:
                        self._remember(name, value)
        except IndexError as error:
            raise HeaderError("headers end too early, or refer to what was never told") from error
        return headers

    def _entry(self, index: int) -> tuple[str, str]:
        if not index:
            raise HeaderError("headers refer to nothing")
        return _STATIC[index - 1] if index <= len(_STATIC) else self._table[index - len(_STATIC) - 1]

    def _remember(self, name: str, value: str) -> None:
        self._table.appendleft((name, value))
        self._size += len(name) + len(value) + _ENTRY_OVERHEAD
        self._shrink()

    def _resize(self, size: int) -> None:
        if size > TABLE_SIZE:
            raise HeaderError("headers want a larger table than was granted")
        self._limit = size
        self._shrink()

    def _shrink(self) -> None:
        while self._size > self._limit:
            name, value = self._table.pop()
            self._size -= len(name) + len(value) + _ENTRY_OVERHEAD


def _decode_integer(block: bytes, position: int, width: int) -> tuple[int, int]:
    limit = (1 << width) - 1
    value = block[position] & limit
    position += 1
    if value < limit:
        return value, position
    shift = 0
    while True:
        byte = block[position]
        value += (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            return value, position
        if shift > _WIDEST:
            raise HeaderError("a number in the headers is too large")


def _decode_text(block: bytes, position: int) -> tuple[str, int]:
    is_huffman = bool(block[position] & 0x80)
    length, start = _decode_integer(block, position, 7)
    data = block[start : start + length]
    if len(data) < length:
        raise HeaderError("headers end too early")
    # Each byte of a name or value is one character, so that lengths are those of the wire.
    return (_decode_huffman(data) if is_huffman else data).decode("latin-1"), start + length


def _decode_huffman(data: bytes) -> bytes:
    codes = _huffman_codes()
    text = bytearray()
    code, length = 0, 0
    for byte in data:
        for shift in range(7, -1, -1):
            code, length = code << 1 | byte >> shift & 1, length + 1
            symbol = codes.get((length, code))
            if symbol is not None:
                text.append(symbol)
                code, length = 0, 0
    # What is left over is padding: the beginning of the code of ones that ends a text.
    if length > 7 or code != (1 << length) - 1:
        raise HeaderError("a text in the headers ends within a character")
    return bytes(text)


_codes: dict[tuple[int, int], int] = {}


def _huffman_codes() -> dict[tuple[int, int], int]:
    # Worked out when first needed, for most texts come once in a connection's life.
    if not _codes:
        code, before = 0, 0
        for length, symbol in sorted((length, symbol) for symbol, length in enumerate(_CODE_LENGTHS)):
            code <<= length - before
            _codes[length, code] = symbol
            code, before = code + 1, length
    return _codes
