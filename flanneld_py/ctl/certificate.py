"""When a certificate ends: read from PEM by just enough of DER (RFC 5280, section 4.1), without a library for it."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_VERSION = 0xA0


def read_expiry(path: Path) -> float | str:
    """Return when the first of a file's certificates to end ends, in seconds since the epoch, or why it is unknown."""
    try:
        texts = _PEM.findall(path.read_text(encoding="ascii", errors="replace"))
        return min(parse_not_after(base64.b64decode(text)) for text in texts) if texts else "it holds no certificate"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    except (ValueError, IndexError, binascii.Error) as error:
        return f"its certificate cannot be read: {error}"


def parse_not_after(der: bytes) -> float:
    """Return notAfter of a certificate in seconds since the epoch. Raises ValueError or IndexError if it is none."""
    [(_, certificate), *_] = _elements(der)
    [(_, signed), *_] = _elements(certificate)
    fields = list(_elements(signed))
    # version (absent in version 1), serialNumber, signature, issuer, validity
    validity = fields[4 if fields[0][0] == _VERSION else 3][1]
    tag, text = list(_elements(validity))[1]
    if tag not in {_UTC_TIME, _GENERALIZED_TIME}:
        raise ValueError("its validity is no time")
    layout = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(text.decode("ascii"), layout).replace(tzinfo=UTC).timestamp()


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Go through the elements of a DER sequence: tag and content of each."""
    offset = 0
    while offset < len(data):
        tag, length, offset = data[offset], data[offset + 1], offset + 2
        if length & 0x80:
            size = length & 0x7F
            length, offset = int.from_bytes(data[offset : offset + size], "big"), offset + size
        if offset + length > len(data):
            raise ValueError("it is cut off")
        yield tag, data[offset : offset + length]
        offset += length
